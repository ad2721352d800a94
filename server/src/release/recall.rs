//! `lockgate release recall`: a recall's folder, made from the release that is recalled and the one it
//! leads to. From there it goes the way of a release: [`super::sign`] signs it and counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::Digest,
    manifest::{Manifest, ManifestError},
    recall::{RECALL_FORMAT, Recall, RecallError, RecallStep},
    time::{Moment, Seconds},
    version::Version,
};
use thiserror::Error;

use crate::{
    plain::plain,
    whole_folder::{FolderError, Readers, WholeFolder},
};

/// The recall inside its folder.
pub const RECALL_FILE: &str = "recall.json";

/// What a recall is to be.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// The version that is recalled.
    pub version: &'a Version,
    /// The text of the manifest that it leads to.
    pub to: &'a [u8],
    /// When it is signed.
    pub issued: Moment,
    /// How long the way back stays open.
    pub life: Seconds,
    /// When harmed devices may go, counted from `issued`.
    pub harmed_after: Seconds,
    /// Which share of the others may go when.
    pub steps: Vec<RecallStep>,
    /// The oldest timestamp on which a device goes back.
    pub timestamp_max_age: Seconds,
    /// Why.
    pub reason: &'a str,
}

/// Why a recall cannot be made.
#[derive(Debug, Error)]
pub enum MakeError {
    /// The manifest that it is to lead to.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It contradicts itself.
    #[error(transparent)]
    Recall(#[from] RecallError),
    /// The folder cannot be written.
    #[error(transparent)]
    Write(#[from] FolderError),
}

/// Makes a recall's folder.
pub fn create(terms: Terms<'_>, out: &Path) -> Result<Recall, MakeError> {
    let to = Manifest::from_json(terms.to)?;
    let recall = Recall {
        format: RECALL_FORMAT,
        product: to.product,
        version: terms.version.clone(),
        to: to.version,
        manifest: Digest::of(terms.to),
        issued: terms.issued,
        until: terms.issued.plus(terms.life),
        harmed_after_s: terms.harmed_after,
        steps: terms.steps,
        timestamp_max_age_s: terms.timestamp_max_age,
        reason: terms.reason.to_owned(),
    };
    recall.check()?;
    let mut text = serde_json::to_vec_pretty(&recall).map_err(RecallError::from)?;
    text.push(b'\n');
    let folder = WholeFolder::begin(out)?;
    folder.file(RECALL_FILE, &text, Readers::Everybody)?;
    folder.finish()?;
    Ok(recall)
}

/// Where a folder's recall is, if it is the folder of one.
pub fn of_folder(folder: &Path) -> Option<PathBuf> {
    let path = folder.join(RECALL_FILE);
    fs::exists(&path).unwrap_or(false).then_some(path)
}

/// What a recall says.
pub fn describe(recall: &Recall, digest: &Digest) -> String {
    let mut text = format!(
        "RECALL of {} {}\nrecall    sha256 {digest}\nback to   {}, manifest sha256 {}\nissued    {}\n\
         until     {}\nharmed    after {}\n",
        recall.product,
        recall.version,
        recall.to,
        recall.manifest,
        recall.issued,
        recall.until,
        recall.harmed_after_s
    );
    for step in &recall.steps {
        let share = f64::from(step.share_ppm) / 10_000.0;
        text += &format!("others    {share} % after {}\n", step.after_s);
    }
    text += &format!(
        "timestamp at most {} old\nreason    {}\n",
        recall.timestamp_max_age_s,
        plain(&recall.reason)
    );
    text
}
