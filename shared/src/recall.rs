//! A recall: the signed way back from a release. A TUF target of the product's role,
//! `releases/<product>/recall-<version>.json`, so that the release keys sign it and a device finds it by
//! the version that it runs.
//!
//! It names one release to go back to, by hash; everything else stays refused, as every older release
//! is without a recall. A recalled version is never installed again, also after the way back has closed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    bucket::{Bucket, Limit},
    id::{Digest, ProductId},
    limits,
    time::{Moment, Seconds},
    version::Version,
};

/// The format this code reads.
pub const RECALL_FORMAT: u32 = 1;

/// A recall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// [`RECALL_FORMAT`].
    pub format: u32,
    /// The product.
    pub product: ProductId,
    /// The version that is recalled.
    pub version: Version,
    /// The older version to which its devices go back.
    pub to: Version,
    /// SHA-256 of that release's manifest.
    pub manifest: Digest,
    /// When it was signed: its steps count from here.
    pub issued: Moment,
    /// When the way back closes.
    pub until: Moment,
    /// How long after `issued` a device may go back that the release harmed.
    pub harmed_after_s: Seconds,
    /// Which share of the others may go back after how long.
    pub steps: Vec<RecallStep>,
    /// Nothing goes back on a timestamp issued longer ago than this.
    pub timestamp_max_age_s: Seconds,
    /// Why.
    pub reason: String,
}

/// One step of a recall's ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallStep {
    /// How long after the recall was issued.
    pub after_s: Seconds,
    /// The share of devices that may go back then, in millionths.
    pub share_ppm: u32,
}

/// Why a recall cannot be used.
#[derive(Debug, Error)]
pub enum RecallError {
    /// Not JSON of this shape.
    #[error("the recall cannot be read")]
    Json(#[from] serde_json::Error),
    /// Larger than [`limits::RECALL_BYTES`], made by a later version, or out of bounds.
    #[error("the recall is refused: {0}")]
    Field(&'static str),
}

impl Recall {
    /// The target path of the recall of a version.
    pub fn path(product: &ProductId, version: &Version) -> String {
        format!("releases/{product}/recall-{version}.json")
    }

    /// Reads and checks a recall whose bytes were verified.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RecallError> {
        if bytes.len() > limits::RECALL_BYTES {
            return Err(RecallError::Field("it is too large"));
        }
        let recall: Self = serde_json::from_slice(bytes)?;
        recall.check()?;
        Ok(recall)
    }

    /// Everything that must hold inside one recall.
    pub fn check(&self) -> Result<(), RecallError> {
        let mut rising = self.steps.windows(2).filter_map(|pair| match pair {
            [a, b] => Some(a.after_s <= b.after_s && a.share_ppm <= b.share_ppm),
            _ => None,
        });
        let problem = if self.format != RECALL_FORMAT {
            "it has another format than this version reads"
        } else if self.to >= self.version {
            "it leads to a version that is not older: that is a release's business"
        } else if self.until <= self.issued {
            "it ends before it begins"
        } else if self.steps.len() > limits::STAGES
            || self.steps.last().is_none_or(|last| last.share_ppm != 1_000_000)
            || !rising.all(|rises| rises)
        {
            "its steps must rise, at most 16 of them, and the last must reach everybody"
        } else if self.timestamp_max_age_s.0 == 0 {
            "`timestamp_max_age_s` must be above zero"
        } else if self.reason.trim().is_empty() || self.reason.len() > 500 {
            "its reason must have 1 to 500 characters"
        } else {
            return Ok(());
        };
        Err(RecallError::Field(problem))
    }

    /// When a device may go back: at once after `harmed_after_s` if the release harmed it, else at the
    /// first step whose share its place lies in.
    pub fn opens(&self, bucket: Bucket, harmed: bool) -> Moment {
        let inside = |step: &&RecallStep| Limit::of_share_ppm(step.share_ppm).admits(bucket);
        let own = self.steps.iter().find(inside).map(|step| step.after_s);
        let after = match (own, harmed) {
            (Some(own), true) => own.min(self.harmed_after_s),
            (Some(own), false) => own,
            (None, _) => self.harmed_after_s,
        };
        self.issued.plus(after)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn harmed_devices_go_first_and_everybody_else_by_their_place() {
        let recall = recall();
        assert!(recall.check().is_ok());
        let after = |bucket, harmed| recall.opens(Bucket(bucket), harmed).since(recall.issued);
        assert_eq!(after(u32::MAX, true), Seconds(10));
        assert_eq!(after(0, true), Seconds(10));
        assert_eq!(after(0, false), Seconds(60));
        assert_eq!(after(u32::MAX, false), Seconds(3600));
    }

    #[test]
    fn a_recall_that_leads_forward_or_nowhere_is_refused() {
        let version = |text: &str| text.parse::<Version>().expect("a version");
        let good = recall();
        let none = Recall { steps: vec![], ..good.clone() };
        let part = Recall { steps: good.steps[..1].to_vec(), ..good.clone() };
        let falling = Recall { steps: good.steps.iter().rev().copied().collect(), ..good.clone() };
        let forward = Recall { to: version("1.1.1"), ..good.clone() };
        let itself = Recall { to: version("1.1.0"), ..good.clone() };
        let step = |after, share_ppm| RecallStep { after_s: Seconds(after), share_ppm };
        let sooner = Recall { steps: vec![step(60, 500_000), step(9, 1_000_000)], ..good.clone() };
        let over = Recall { until: good.issued, ..good.clone() };
        let mute = Recall { reason: " ".into(), ..good.clone() };
        for bad in [none, part, falling, sooner, forward, itself, over, mute] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let text = serde_json::to_vec(&good).expect("json");
        assert_eq!(Recall::from_json(&text).expect("a recall"), good);
        let mut long = text;
        long.resize(limits::RECALL_BYTES, b' ');
        assert!(Recall::from_json(&long).is_ok());
        long.push(b' ');
        assert!(Recall::from_json(&long).is_err(), "a byte too many");
    }

    pub(crate) fn recall() -> Recall {
        let step = |after, share_ppm| RecallStep { after_s: Seconds(after), share_ppm };
        Recall {
            format: RECALL_FORMAT,
            product: "app".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            to: "1.0.0".parse().expect("a version"),
            manifest: Digest::of(b"1.0.0"),
            issued: Moment(1_790_000_000),
            until: Moment(1_790_000_000).plus(Seconds(86_400)),
            harmed_after_s: Seconds(10),
            steps: vec![step(60, 500_000), step(3600, 1_000_000)],
            timestamp_max_age_s: Seconds(3600),
            reason: "it loses data".into(),
        }
    }
}
