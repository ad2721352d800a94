//! In which cohort a device stands, by what it was granted and by the policy: one rule for the device,
//! which acts by it, and for the gatekeeper, which expects the device there. Whether a grant was signed
//! by enough people is asked before.
//!
//! It says where a device stands now. A rollout that a device has seen keeps the cohort that it had then.

use serde::{Deserialize, Serialize};

use crate::{
    act::Grant,
    id::{ChannelId, CohortId, ProductId},
    policy::Policy,
    time::Moment,
};

/// What a grant gives for one product, and while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The channel.
    pub channel: ChannelId,
    /// The cohort.
    pub cohort: CohortId,
    /// From when on.
    pub issued: Moment,
    /// Until when: at this moment it has ended.
    pub expires: Moment,
}

impl Given {
    /// What this grant gives.
    pub fn by(grant: &Grant) -> Self {
        Self {
            channel: grant.channel.clone(),
            cohort: grant.cohort.clone(),
            issued: grant.issued,
            expires: grant.expires,
        }
    }

    /// Whether it counts at `now`.
    pub fn counts(&self, now: Moment) -> bool {
        self.issued <= now && now < self.expires
    }
}

/// Of what a device was given for one product, that which counts at `now`: the newest.
pub fn newest(given: impl Iterator<Item = Given>, now: Moment) -> Option<Given> {
    given.filter(|given| given.counts(now)).max_by_key(|given| given.issued)
}

/// The cohort of a device in a product's rollouts on `channel`: what it was given there, else the last
/// that the policy names. `given` is what counts now.
pub fn cohort<'a>(
    policy: &'a Policy,
    given: Option<&'a Given>,
    product: &ProductId,
    channel: &ChannelId,
) -> Option<&'a CohortId> {
    match given {
        Some(given) if given.channel == *channel => Some(&given.cohort),
        Some(_) | None => policy.default_place(product).map(|(_, last)| last),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{act::tests::policy, policy::Product};

    #[test]
    fn a_grant_counts_from_its_moment_to_its_end_and_the_newest_that_does() {
        let long = given("stable", "early", (100, 1_000));
        let short = given("stable", "dogfood", (200, 300));
        let at = |now| {
            newest([long.clone(), short.clone()].into_iter(), Moment(now)).map(|one| one.cohort)
        };
        assert_eq!(at(99), None);
        assert_eq!(at(100), Some(long.cohort.clone()));
        assert_eq!(at(200), Some(short.cohort.clone()));
        assert_eq!(at(299), Some(short.cohort.clone()));
        assert_eq!(at(300), Some(long.cohort.clone()), "at its end it has ended");
        assert_eq!(at(1_000), None);
    }

    #[test]
    fn a_device_is_in_the_last_cohort_where_nothing_that_counts_says_otherwise() {
        let mut policy = policy(1);
        let app: ProductId = "app".parse().expect("a name");
        let cohorts = ["dogfood", "early", "general"].map(|name| name.parse().expect("a name"));
        let channels = ["stable", "beta"].map(|name| name.parse().expect("a name"));
        let product = Product { channels: channels.into(), cohorts: cohorts.into() };
        policy.products = BTreeMap::from([(app.clone(), product)]);
        let early = given("stable", "early", (0, 1));
        let place = |given: Option<&Given>, channel: &str| {
            let channel = channel.parse().expect("a name");
            cohort(&policy, given, &app, &channel).map(ToString::to_string)
        };
        assert_eq!(place(Some(&early), "stable").as_deref(), Some("early"));
        assert_eq!(place(Some(&early), "beta").as_deref(), Some("general"));
        assert_eq!(place(None, "stable").as_deref(), Some("general"));
        let other = "other".parse().expect("a name");
        assert_eq!(cohort(&policy, None, &other, &early.channel), None);
    }

    fn given(channel: &str, cohort: &str, (issued, expires): (i64, i64)) -> Given {
        Given {
            channel: channel.parse().expect("a name"),
            cohort: cohort.parse().expect("a name"),
            issued: Moment(issued),
            expires: Moment(expires),
        }
    }
}
