//! An act in words: the same text for the same act wherever it is shown, before people sign and when
//! the server is asked. Everything in it comes from the bytes that are signed, or from files that these
//! bytes name by hash ([`consequences`]); a description that came beside them is never shown. Pure; it
//! permits nothing.

pub mod consequences;

use std::fmt::{self, Write as _};

use lockgate_shared::{
    act::{Act, ActError, Grant, Lift, RiskClass, SignedAct, Start, WaivedRule, Waiver},
    count::count,
    id::{PersonId, PublicKey},
    policy::{Policy, Role},
    sign::{self, Domain},
};

use self::consequences::AtHand;
use crate::plain::plain;

/// One signature on an act, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The key.
    pub key: PublicKey,
    /// The approver whose key it is, by the policy.
    pub approver: Option<PersonId>,
    /// Whether it is a signature over these very bytes.
    pub holds: bool,
}

/// What an act says.
pub fn describe(act: &Act) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, act);
    text
}

/// What people read before they sign: what the signed text says, and what follows from it.
pub fn canonical(signed: &SignedAct, at_hand: &AtHand<'_>) -> Result<String, ActError> {
    let act = signed.unverified()?;
    let mut text = describe(&act);
    // Writing to a string cannot fail.
    let _ = consequences::write(&mut text, &act, at_hand);
    let _ = writeln!(text, "\nsigned is exactly the text with sha256 {}", signed.digest());
    Ok(text)
}

/// Everything about an act's file: what it says and what follows, its exact text, who signed, who is
/// missing.
pub fn describe_signed(
    signed: &SignedAct,
    policy: Option<&Policy>,
    at_hand: &AtHand<'_>,
) -> Result<String, ActError> {
    let act = signed.unverified()?;
    let mut text = canonical(signed, at_hand)?;
    // Writing to a string cannot fail.
    let _ = write_signatures(&mut text, signed, &act, policy);
    Ok(text)
}

/// The signatures on an act, in their order.
pub fn judge(signed: &SignedAct, policy: Option<&Policy>) -> Vec<Judged> {
    let judge = |signature: &lockgate_shared::act::ActSignature| Judged {
        key: signature.key,
        approver: policy
            .and_then(|policy| policy.person_with_key(&signature.key, Role::Approver))
            .cloned(),
        holds: sign::verify(
            &signature.key,
            Domain::ActV1,
            signed.text.as_bytes(),
            &signature.signature,
        ),
    };
    signed.signatures.iter().map(judge).collect()
}

fn write(out: &mut String, act: &Act) -> fmt::Result {
    match act {
        Act::Start(act) => start(out, act),
        Act::Approve(act) => {
            writeln!(out, "APPROVE stage {} `{}` of a rollout", act.stage, act.cohort)?;
            writeln!(out, "rollout     {}", act.rollout)?;
            writeln!(out, "manifest    sha256 {}", act.manifest)
        }
        Act::Lift(act) => lift(out, act),
        Act::Waive(act) => waive(out, act),
        Act::Grant(act) => grant(out, act),
    }?;
    writeln!(out, "repository  {}", act.repository())
}

fn start(out: &mut String, act: &Start) -> fmt::Result {
    let risk = match act.risk {
        RiskClass::Routine => "routine",
        RiskClass::Security => "security",
        RiskClass::Emergency => "EMERGENCY",
    };
    writeln!(out, "START the rollout of {} {} on `{}`", act.product, act.version, act.channel)?;
    writeln!(out, "manifest    sha256 {}", act.manifest)?;
    writeln!(out, "rollout     {}", act.rollout())?;
    writeln!(out, "moment      {} (floors count from here)", act.moment)?;
    for size in &act.cohorts {
        let devices = count(size.devices, "device", "devices");
        writeln!(out, "cohort      `{}` of {devices}", size.cohort)?;
    }
    writeln!(out, "owner       {}", act.owner)?;
    writeln!(out, "risk        {risk}")?;
    writeln!(out, "plan        sha256 {}", act.plan)
}

fn lift(out: &mut String, act: &Lift) -> fmt::Result {
    let numbers: Vec<String> = act.numbers.iter().map(|number| format!("#{number}")).collect();
    writeln!(out, "LIFT {}", numbers.join(", "))?;
    writeln!(out, "reason      {}", plain(&act.reason))
}

fn waive(out: &mut String, act: &Waiver) -> fmt::Result {
    match &act.rule {
        WaivedRule::Coverage(group) => writeln!(out, "WAIVE coverage of group {group}")?,
        WaivedRule::MinimumDevices(stage) => {
            writeln!(out, "WAIVE the minimum of devices of stage {stage}")?;
        }
    }
    writeln!(out, "rollout     {}", act.rollout)?;
    writeln!(out, "expires     {}", act.expires)?;
    writeln!(out, "reason      {}", plain(&act.reason))
}

fn grant(out: &mut String, act: &Grant) -> fmt::Result {
    writeln!(out, "GRANT one device cohort `{}` on channel `{}`", act.cohort, act.channel)?;
    writeln!(out, "device      {}", act.device)?;
    writeln!(out, "tenant      {}", act.tenant)?;
    writeln!(out, "product     {}", act.product)?;
    writeln!(out, "from        {} until {}", act.issued, act.expires)?;
    writeln!(out, "reason      {}", plain(&act.reason))
}

fn write_signatures(
    out: &mut String,
    signed: &SignedAct,
    act: &Act,
    policy: Option<&Policy>,
) -> fmt::Result {
    writeln!(out, "\nexact text:")?;
    for line in signed.text.lines() {
        writeln!(out, "  {}", plain(line))?;
    }
    writeln!(out)?;
    for judged in judge(signed, policy) {
        let who = match (&judged.approver, judged.holds) {
            (_, false) => "DOES NOT HOLD".to_owned(),
            (Some(person), true) => format!("{person}, approver"),
            (None, true) if policy.is_some() => "holds, and is no approver's: not counted".into(),
            (None, true) => "holds; pass the policy to see whose it is".into(),
        };
        writeln!(out, "signed by {}: {who}", judged.key)?;
    }
    match policy {
        Some(policy) => write_standing(out, signed, act, policy),
        None => Ok(()),
    }
}

/// How many approvers have signed, and how many are missing.
pub fn standing(signed: &SignedAct, policy: &Policy) -> Result<String, ActError> {
    let act = signed.unverified()?;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_standing(&mut text, signed, &act, policy);
    Ok(text)
}

fn write_standing(out: &mut String, signed: &SignedAct, act: &Act, policy: &Policy) -> fmt::Result {
    let needed = policy.needed(act);
    match signed.verify(policy) {
        Ok(verified) => match verified.people().len() {
            more if more > usize::from(needed) => {
                writeln!(out, "enough: {more} approvers signed, {needed} had to")
            }
            just => writeln!(out, "enough: {just} of {needed} approvers signed"),
        },
        Err(ActError::Threshold { valid, needed }) => {
            let missing = usize::from(needed).saturating_sub(valid);
            writeln!(out, "{valid} of {needed} approvers signed, {missing} missing")
        }
        Err(
            error @ (ActError::TooLarge { .. }
            | ActError::Json(_)
            | ActError::Repository { .. }
            | ActError::Field(_)),
        ) => writeln!(out, "refused: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn a_reason_cannot_speak_to_the_terminal() {
        let act = Act::Lift(Lift {
            repository: "trial".parse().expect("a name"),
            numbers: [7].into(),
            reason: "fine\u{1b}[1A\rLIFT #1".into(),
        });
        let text = describe(&act);
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
        assert!(text.starts_with("LIFT #7\n"));
    }

    #[test]
    fn a_changed_text_shows_that_its_signature_does_not_hold() {
        let act = Act::Lift(Lift {
            repository: "trial".parse().expect("a name"),
            numbers: [7].into(),
            reason: "checked".into(),
        });
        let mut signed = SignedAct::unsigned(&act).expect("an act");
        signed.sign(&SigningKey::from_bytes(&[1; 32]));
        assert!(judge(&signed, None)[0].holds);
        signed.text = signed.text.replace('7', "8");
        let text = describe_signed(&signed, None, &AtHand::default()).expect("readable");
        assert!(text.contains("LIFT #8") && text.contains("DOES NOT HOLD"), "{text}");
    }
}
