//! What a recall means for this device: which candidates fall out, and whether the way back from what
//! runs is open. It opens nothing by itself: only a recall that the release keys signed leads back.

use std::collections::BTreeMap;

use lockgate_shared::{
    eligibility::{self, Device, Reason, ServerView, WayBack},
    id::{Digest, RolloutId},
    recall::Recall,
    version::Version,
};

use super::choice::{Finding, Situation};

/// The recalls of the versions that matter to a device, each with the digest of its bytes; without them
/// where a recall is listed that could not be read.
pub type Recalls = BTreeMap<Version, Option<(Digest, Recall)>>;

/// What a device is as far as a recall asks.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether what runs harmed it.
    pub harmed: bool,
    /// Whether what runs can be undone on it.
    pub undoable: bool,
}

/// The way back from what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    /// Where it leads.
    pub to: Version,
    /// The manifest of that release.
    pub manifest: Digest,
    /// What outcomes name instead of a rollout.
    pub rollout: RolloutId,
    /// Why it was recalled.
    pub reason: String,
    /// Whether it is open now.
    pub finding: Finding,
}

/// Why a candidate of this version is not for anybody, if so.
pub fn against(recalls: &Recalls, version: &Version) -> Option<Finding> {
    Some(match recalls.get(version)? {
        None => Finding::Refused("whether it is recalled could not be read".into()),
        Some((_, recall)) => {
            let (version, reason) = (version.clone(), recall.reason.clone());
            Finding::Against(vec![Reason::Recalled { version, reason }])
        }
    })
}

/// The way back from what runs, if that is recalled.
pub fn back(
    situation: &Situation<'_>,
    device: &Device<'_>,
    server: &ServerView<'_>,
) -> Option<Back> {
    let running = situation.own.running?;
    let (digest, recall) = situation.recalls.get(running)?.as_ref()?;
    let finding = match situation.manifests.get(&recall.manifest) {
        None => Finding::Refused(format!("the manifest of {} is not at hand", recall.to)),
        Some(manifest) => {
            let Standing { harmed, undoable } = situation.own.standing;
            let back = WayBack { recall, digest: *digest, manifest, harmed, undoable };
            match eligibility::way_back(&back, device, server, situation.now) {
                none if none.is_empty() => Finding::Go,
                reasons => Finding::Against(reasons),
            }
        }
    };
    Some(Back {
        to: recall.to.clone(),
        manifest: recall.manifest,
        rollout: RolloutId::of(digest, situation.own.channel),
        reason: recall.reason.clone(),
        finding,
    })
}
