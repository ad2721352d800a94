//! What restricts, on its way into the book: pauses, ends of rollouts, devices whose letters are not taken,
//! grants that are taken back. Nobody signs it. A stop must be ordered by the token of a person whom the
//! policy names; the rest is the letter box's word, which makes no device better and no gate faster.

use lockgate_shared::{
    id::RolloutId,
    policy::Role,
    rollout::{Scope, StopKind},
};

use super::{
    book::{CLOCK_SKEW, Device},
    intake::{Intake, Refusal, rule},
};
use crate::{
    letters::bars::BarKind,
    rollout::Rollout,
    status::{About, Decision},
    stream::{BarRequest, Entry, StopHow, StopRequest, WithdrawRequest},
};

impl Intake<'_> {
    pub(super) fn stop(&mut self, entry: &Entry) -> Result<Option<String>, Refusal> {
        let request: StopRequest = serde_json::from_slice(&entry.bytes)?;
        let person = self.policy().people.iter().find(|(_, p)| p.tokens.contains(&request.token));
        let Some((name, person)) = person else {
            return rule(format!("token `{}` belongs to nobody in the policy", request.token));
        };
        let own_tenant = matches!(request.scope, Scope::Tenant(_));
        let may = person.roles.contains(&Role::Operator)
            || own_tenant && person.roles.contains(&Role::Administrator);
        let name = name.to_string();
        if !may {
            return rule(format!("`{name}` is no operator"));
        }
        let what = match request.how {
            StopHow::End => self.end(&request)?,
            StopHow::Pause => self.pause(&request, &name)?,
        };
        self.book.note(self.now, &name, "stop", &what)?;
        Ok(Some(what))
    }

    fn pause(&mut self, request: &StopRequest, name: &str) -> Result<String, Refusal> {
        let stands = self
            .book
            .stops
            .values()
            .find(|stop| stop.kind == StopKind::Pause && stop.scope == request.scope);
        if let Some(stop) = stands {
            return Ok(format!(
                "nothing changed: stop {} stands for this since {}: {}",
                stop.number, stop.since, stop.reason
            ));
        }
        let over = match &request.scope {
            Scope::Rollout(id) => self.over(id)?,
            Scope::Groups(..)
            | Scope::Cohort(..)
            | Scope::Tenant(_)
            | Scope::Product(_)
            | Scope::Everything => "",
        };
        let reason = format!("{} ({name})", request.reason);
        match self.book.stop(StopKind::Pause, request.scope.clone(), &reason, self.now)? {
            Some(number) => Ok(format!("stop {number}: {reason}{over}")),
            None => rule(format!(
                "{} stops stand, and a rollout file carries no more: lift some, or have them replaced by a wider one",
                self.book.stops.len()
            )),
        }
    }

    /// What a pause of a rollout comes too late for; refused where there is nothing left to pause.
    fn over(&self, id: &RolloutId) -> Result<&'static str, Refusal> {
        match self.book.rollouts.get(id) {
            Some(Rollout { ended: Some(ended), .. }) => {
                rule(format!("the rollout was ended for good at {ended}: nothing of it goes out"))
            }
            Some(rollout) if rollout.complete.is_some() => Ok(
                "; the rollout is complete: devices that have it keep it, those that have not come yet wait",
            ),
            // A stop is never too early.
            Some(_) | None => Ok(""),
        }
    }

    fn end(&mut self, request: &StopRequest) -> Result<String, Refusal> {
        let Scope::Rollout(id) = &request.scope else {
            return rule("only one rollout at a time is ended for good");
        };
        let now = self.now;
        let Some(rollout) = self.book.rollout_mut(id) else {
            return rule("there is no such rollout");
        };
        if let Some(ended) = rollout.ended {
            return Ok(format!("nothing changed: rollout {id} was ended for good at {ended}"));
        }
        rollout.ended = Some(now);
        let reasons = vec![request.reason.clone()];
        self.book.verdict(now, About::Rollout(*id), Decision::End, reasons)?;
        Ok(format!("rollout {id} is ended for good: {}", request.reason))
    }

    pub(super) fn bar(&mut self, entry: &Entry) -> Result<Option<String>, Refusal> {
        let request: BarRequest = serde_json::from_slice(&entry.bytes)?;
        let Some(device) = self.book.device(&request.device) else {
            return rule("no enrolment of this device was verified");
        };
        if device.tenant != request.tenant {
            return rule(format!("the device is of another tenant than `{}`", request.tenant));
        }
        let device = Device { barred: true, ..device.clone() };
        self.book.put_device(request.device, device);
        let (word, what) = match request.kind {
            BarKind::Revoked => ("revoke", "is revoked"),
            BarKind::Held => ("hold", "is held: two machines have its identity"),
        };
        let text = format!("{what}: {}", request.reason);
        match request.kind {
            // People have done about it what can be done.
            BarKind::Revoked => self.book.end_alarms(&request.device),
            BarKind::Held => {
                self.book.alarm(self.now, Some(request.device), format!("it {text}"));
            }
        }
        let what = format!("device {} {text}", request.device);
        self.book.note(self.now, &request.by, word, &what)?;
        Ok(Some(what))
    }

    /// A device is in the last cohort again. Who said so is the letter box's word; it only restricts.
    pub(super) fn withdraw(&mut self, entry: &Entry) -> Result<Option<String>, Refusal> {
        let request: WithdrawRequest = serde_json::from_slice(&entry.bytes)?;
        let Some(device) = self.book.device(&request.device) else {
            return rule("no enrolment of this device was verified");
        };
        if device.tenant != request.tenant {
            return rule(format!("the device is of another tenant than `{}`", request.tenant));
        }
        if !self.policy().products.contains_key(&request.product) {
            return rule(format!("the policy names no product `{}`", request.product));
        }
        let until = (request.issued, self.now.plus(CLOCK_SKEW));
        self.book.withdraw(&request.device, &request.product, until)?;
        let what = format!(
            "device {} is in the last cohort of `{}` again: its grant of {} is withdrawn",
            request.device, request.product, request.issued
        );
        self.book.note(self.now, &request.by, "withdraw", &what)?;
        Ok(Some(what))
    }
}
