//! `lockgate release`: made, signed and checked away from the server.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use lockgate_shared::{
    act::CohortSize,
    id::{CohortId, Digest, ProductId},
    limits,
    manifest::{Ladder, Manifest},
    policy::Policy,
    recall::{Recall, RecallStep},
    time::{Moment, Seconds},
    version::Version,
};
use serde_json::json;

use super::{
    Answer, CliError, Confirmation, PassphraseArgs, PolicyArgs, confirm, copy_word, read, word,
};
use crate::{
    clock, names,
    release::{
        self, ArtifactSource, Create, MANIFEST_FILE,
        lint::{self, Around, Finding},
        plan::ReleasePlan,
        recall,
        role::{CurrentRole, LocalRepository},
        sign::{Content, Draft, PUBLICATION_FILE, SignError, Standing},
    },
    signer::KeyRef,
    span::Span,
};

/// Releases, before they are published.
#[derive(Clone, Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Pack files and write a release's folder
    Create(CreateArgs),
    /// Write the folder of a recall: a signed way back; it is signed and published like a release
    Recall(Box<RecallArgs>),
    /// Show a release or a recall, then sign it with one author's key
    Sign(SignArgs),
    /// Say what is dangerous about a release, and how far it or a recall is signed
    Check(CheckArgs),
}

/// Options of `release create`.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// The product
    #[arg(long)]
    pub product: ProductId,
    /// The version
    #[arg(long)]
    pub version: Version,
    /// Folder to pack for every device that no `--artifact` fits
    #[arg(long, value_name = "DIR", required_unless_present = "artifact")]
    pub files: Option<PathBuf>,
    /// Folder for some devices: `DIR:arch=aarch64:os=debian:model=Acme Slate 3`
    #[arg(long, value_name = "DIR:KEY=VALUE…", value_parser = artifact_source)]
    pub artifact: Vec<ArtifactSource>,
    /// Severity, trial, probes, ladder, notes, in TOML
    #[arg(long, value_name = "FILE")]
    pub release: PathBuf,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The policy, for a ladder preset and to check the cohorts
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Options of `release recall`.
#[derive(Clone, Debug, Args)]
pub struct RecallArgs {
    /// The version that is recalled
    #[arg(long)]
    pub version: Version,
    /// The folder of the older release to which its devices go back, or its manifest
    #[arg(long, value_name = "RELEASE")]
    pub to: PathBuf,
    /// How long the way back stays open
    #[arg(long, value_name = "SPAN", default_value = "90d")]
    pub life: Span,
    /// When devices may go that the release harmed, counted from now
    #[arg(long, value_name = "SPAN", default_value = "1s")]
    pub harmed: Span,
    /// When which share of the others may go: `1h=10` is ten percent after an hour
    #[arg(long, value_name = "SPAN=PERCENT", value_delimiter = ',', value_parser = recall_step,
          default_value = "15m=1,1h=10,4h=100")]
    pub step: Vec<RecallStep>,
    /// The oldest signed timestamp on which a device goes back
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    pub timestamp: Span,
    /// Why; the devices' owners read it
    #[arg(long)]
    pub reason: String,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Where a repository's copy is, and where trust in it begins.
#[derive(Clone, Debug, Args)]
pub struct CopyArgs {
    /// A local copy of the repository
    #[arg(long, value_name = "DIR")]
    pub repository: PathBuf,
    /// The root file at which trust begins; else the oldest root in the copy
    #[arg(long, value_name = "FILE")]
    pub anchor: Option<PathBuf>,
}

/// Options of `release sign`.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// The release's folder
    #[arg(value_name = "RELEASE")]
    pub folder: PathBuf,
    /// The repository's copy
    #[command(flatten)]
    pub copy: CopyArgs,
    /// The author's key: a file, `pkcs11:…` (RFC 7512), or `command:PROGRAM`
    #[arg(long, value_name = "KEY")]
    pub key: KeyRef,
    /// The key's passphrase
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// For the first signer: how long the role's metadata is good
    #[arg(long, default_value = "180d")]
    pub expires: Span,
    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
}

/// Options of `release check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The release's folder, or its plan in TOML before it is packed
    #[arg(value_name = "RELEASE|PLAN")]
    pub subject: PathBuf,
    /// The repository's copy, or for a plan the policy
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// For a plan with a preset: the product, where the policy has several
    #[arg(long)]
    pub product: Option<ProductId>,
    /// A cohort and its number of devices: with it more is found
    #[arg(long = "cohort", value_name = "NAME=DEVICES", value_parser = super::rollout::cohort_size)]
    pub cohorts: Vec<CohortSize>,
    /// How often devices poll
    #[arg(long, value_name = "SPAN", default_value = "5m")]
    pub polls: Span,
    /// End with exit code 6 where anything is dangerous
    #[arg(long)]
    pub strict: bool,
}

/// Does what was asked. What is to be read before anybody confirms goes to `desk`.
pub fn run(command: &ReleaseCommand, desk: &mut dyn Write) -> Result<Answer, CliError> {
    match command {
        ReleaseCommand::Create(args) => create(args),
        ReleaseCommand::Recall(args) => recall(args),
        ReleaseCommand::Sign(args) => sign(args, desk),
        ReleaseCommand::Check(args) => check(args, desk),
    }
}

fn create(args: &CreateArgs) -> Result<Answer, CliError> {
    let mut artifacts = args.artifact.clone();
    artifacts.extend(
        args.files.clone().map(|folder| ArtifactSource { folder, ..ArtifactSource::default() }),
    );
    let (plan, policy) = (ReleasePlan::read(&args.release)?, args.policy.load()?);
    let made = release::create(&Create {
        product: &args.product,
        version: &args.version,
        artifacts: &artifacts,
        plan: &plan,
        policy: policy.as_ref(),
        out: &args.out,
    })?;
    let mut text = release::describe(&made.manifest, &made.digest);
    text += &said(&made.warnings);
    text += &format!("\nwritten to `{}`, signed by nobody yet\n", args.out.display());
    text += &sign_next(&args.out, args.policy.repository.as_deref());
    let json = json!({
        "folder": args.out,
        "manifest_sha256": made.digest,
        "manifest": made.manifest,
        "warnings": made.warnings,
    });
    Ok(Answer { text, json })
}

fn recall(args: &RecallArgs) -> Result<Answer, CliError> {
    let file = if args.to.is_dir() { args.to.join(MANIFEST_FILE) } else { args.to.clone() };
    let to = read(&file, limits::MANIFEST_BYTES)?;
    let terms = recall::Terms {
        version: &args.version,
        to: &to,
        issued: clock::now(),
        life: args.life.0,
        harmed_after: args.harmed.0,
        steps: args.step.clone(),
        timestamp_max_age: args.timestamp.0,
        reason: &args.reason,
    };
    let made = recall::create(terms, &args.out)?;
    let text = read(&args.out.join(recall::RECALL_FILE), limits::RECALL_BYTES)?;
    let digest = Digest::of(&text);
    let mut text = recall::describe(&made, &digest);
    text += &format!("\nwritten to `{}`, signed by nobody yet\n", args.out.display());
    text += &sign_next(&args.out, None);
    let json = json!({ "folder": args.out, "recall_sha256": digest, "recall": made });
    Ok(Answer { text, json })
}

fn recall_step(text: &str) -> Result<RecallStep, String> {
    let wrong = || "use a span and a percentage such as `1h=10`".to_owned();
    let (span, percent) = text.split_once('=').ok_or_else(wrong)?;
    let Span(after_s) = span.parse().map_err(|_| wrong())?;
    let share_ppm = percent.parse::<u32>().ok().and_then(|percent| percent.checked_mul(10_000));
    let share_ppm = share_ppm.filter(|share| *share <= 1_000_000).ok_or_else(wrong)?;
    Ok(RecallStep { after_s, share_ppm })
}

fn sign(args: &SignArgs, desk: &mut dyn Write) -> Result<Answer, CliError> {
    let Span(life) = args.expires;
    let (mut draft, current) = open(&args.folder, &args.copy, clock::now(), life)?;
    show(&draft, &current, &Around::default(), desk)?;
    confirm(Confirmation::from(args.yes), desk)?;
    let key = args.key.open(&args.passphrase.source())?;
    let standing = draft.sign(&current, &*key)?;
    Ok(report(&draft, &standing, (&args.folder, &args.copy.repository)))
}

/// The line that says how an author signs.
fn sign_next(folder: &Path, repository: Option<&Path>) -> String {
    format!(
        "next: `lockgate release sign {} --repository {} --key people/<author>.key`\n",
        word(folder),
        copy_word(repository)
    )
}

fn check(args: &CheckArgs, desk: &mut dyn Write) -> Result<Answer, CliError> {
    if args.subject.is_dir() || args.subject.ends_with(MANIFEST_FILE) {
        return check_folder(args, desk);
    }
    let plan = ReleasePlan::read(&args.subject)?;
    let policy = args.policy.load()?;
    let ladder = plan.ladder.ladder(cohorts(args, policy.as_ref())?)?;
    ladder.check()?;
    fits_stages(&args.cohorts, &ladder)?;
    let found = lint::plan_warnings(&plan, &ladder, &around(args));
    let mut text = said(&found);
    if found.is_empty() {
        text += "nothing in this plan looks dangerous\n";
    }
    let answer = Answer { text, json: json!({ "warnings": found }) };
    strictly(args, &found, answer, desk)
}

fn check_folder(args: &CheckArgs, desk: &mut dyn Write) -> Result<Answer, CliError> {
    let Some(repository) = args.policy.repository.clone() else {
        return Err(CliError::Usage(
            "a release is checked against a repository\nhint: pass `--repository DIR`".into(),
        ));
    };
    let copy = CopyArgs { repository, anchor: args.policy.anchor.clone() };
    let folder = match args.subject.parent() {
        Some(folder) if !args.subject.is_dir() => folder,
        Some(_) | None => args.subject.as_path(),
    };
    // The span only matters where nobody has signed yet, and nothing is written then.
    let (draft, current) = open(folder, &copy, clock::now(), Seconds(86_400))?;
    if let Content::Release(manifest) = draft.content() {
        fits_stages(&args.cohorts, &manifest.ladder)?;
    }
    let found = show(&draft, &current, &around(args), desk)?;
    let standing = draft.settle(&current)?;
    let mut answer = report(&draft, &standing, (folder, &copy.repository));
    if let Some(fields) = answer.json.as_object_mut() {
        fields.insert("warnings".into(), json!(found));
    }
    if let Err(error) = draft.publication(&current) {
        // Who has signed is worth reading all the same.
        write!(desk, "{}", answer.text)?;
        return Err(error.into());
    }
    strictly(args, &found, answer, desk)
}

/// Refuses a number of devices of a cohort that no stage has: nothing would be found by it.
fn fits_stages(sizes: &[CohortSize], ladder: &Ladder) -> Result<(), CliError> {
    let stages = || ladder.stages.iter().map(|stage| &stage.cohort);
    let Some(size) = sizes.iter().find(|size| stages().all(|cohort| *cohort != size.cohort)) else {
        return Ok(());
    };
    let known = names::instead_of(size.cohort.as_str(), stages().map(CohortId::as_str));
    Err(CliError::Usage(format!("no stage has the cohort `{}`\nhint: {known}", size.cohort)))
}

/// The answer, or where dangers are to end the program the text and an error.
fn strictly(
    args: &CheckArgs,
    found: &[Finding],
    answer: Answer,
    desk: &mut dyn Write,
) -> Result<Answer, CliError> {
    if !args.strict || found.is_empty() {
        return Ok(answer);
    }
    write!(desk, "{}", answer.text)?;
    Err(CliError::Dangerous(found.len()))
}

fn around(args: &CheckArgs) -> Around {
    let devices = args.cohorts.iter().map(|size| (size.cohort.clone(), size.devices));
    Around { polls: Some(args.polls.0), devices: devices.collect(), ..Around::default() }
}

/// The cohorts of the product that a plan's preset is for.
fn cohorts<'p>(
    args: &CheckArgs,
    policy: Option<&'p Policy>,
) -> Result<Option<&'p [CohortId]>, CliError> {
    let Some(policy) = policy else { return Ok(None) };
    let product = match &args.product {
        Some(name) => policy.products.get(name),
        None if policy.products.len() == 1 => policy.products.values().next(),
        None => None,
    };
    match product {
        Some(product) => Ok(Some(&product.cohorts)),
        None => Err(CliError::Usage(
            "the plan is for which product?\nhint: pass `--product` with one of the policy's"
                .into(),
        )),
    }
}

fn said(found: &[Finding]) -> String {
    found.iter().map(|finding| format!("warning: {finding}\n")).collect()
}

fn open(
    folder: &Path,
    copy: &CopyArgs,
    now: Moment,
    life: Seconds,
) -> Result<(Draft, CurrentRole), CliError> {
    let product = match recall::of_folder(folder) {
        Some(path) => {
            Recall::from_json(&read(&path, limits::RECALL_BYTES)?).map_err(SignError::from)?.product
        }
        None => {
            let manifest = folder.join(MANIFEST_FILE);
            if !manifest.exists() {
                return Err(CliError::Usage(format!(
                    "there is no `{}`\nhint: pass the folder that `lockgate release create` made",
                    manifest.display()
                )));
            }
            let bytes = read(&manifest, limits::MANIFEST_BYTES)?;
            Manifest::from_json(&bytes)?.product
        }
    };
    let current =
        LocalRepository::open(&copy.repository, copy.anchor.as_deref())?.role(&product)?;
    let draft = Draft::open(folder, &current, now, life)?;
    Ok((draft, current))
}

/// Shows what is signed, and what is dangerous about it.
fn show(
    draft: &Draft,
    current: &CurrentRole,
    around: &Around,
    out: &mut dyn Write,
) -> Result<Vec<Finding>, CliError> {
    let standing = draft.standing(current)?;
    let (text, found) = match draft.content() {
        Content::Release(manifest) => {
            (release::describe(manifest, &draft.digest()), lint::warnings(manifest, around))
        }
        Content::Recall(made) => (recall::describe(made, &draft.digest()), Vec::new()),
    };
    write!(out, "{text}")?;
    writeln!(
        out,
        "\nrole      `{}` version {}, good until {}, keeps {} earlier targets",
        standing.role,
        standing.version,
        draft.expires(),
        standing.kept
    )?;
    if current.cohorts.is_none() {
        writeln!(out, "warning: the copy holds no policy: the ladder's cohorts were not compared")?;
    }
    for sha256 in &standing.unchecked {
        writeln!(out, "warning: artifact {sha256} is not in the folder and was not checked")?;
    }
    write!(out, "{}", said(&found))?;
    Ok(found)
}

fn report(draft: &Draft, standing: &Standing, (folder, copy): (&Path, &Path)) -> Answer {
    let publication = folder.join(PUBLICATION_FILE);
    let mut text: String =
        standing.signers.iter().map(|key| format!("signed by {key}\n")).collect();
    text += &format!("{} of {} signatures hold\n", standing.signers.len(), standing.needed);
    text += &if standing.complete() {
        let (at, folder) = (publication.display(), word(folder));
        format!(
            "enough: `{at}` is written\nnext: `lockgate release publish --dir {folder} --wait`\n"
        )
    } else {
        sign_next(folder, Some(copy))
    };
    let (product, version, what) = match draft.content() {
        Content::Release(manifest) => (&manifest.product, &manifest.version, "manifest_sha256"),
        Content::Recall(recall) => (&recall.product, &recall.version, "recall_sha256"),
    };
    let json = json!({
        "product": product,
        "version": version,
        what: draft.digest(),
        "role": standing.role,
        "role_version": standing.version,
        "signers": standing.signers,
        "needed": standing.needed,
        "enough": standing.complete(),
        "publication": standing.complete().then_some(publication),
        "unchecked": standing.unchecked,
    });
    Answer { text, json }
}

fn artifact_source(text: &str) -> Result<ArtifactSource, String> {
    text.parse().map_err(|error: release::CreateError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::plan::Preset;

    #[test]
    fn devices_of_a_cohort_that_no_stage_has_are_refused() {
        let cohorts: Vec<CohortId> =
            ["dogfood", "general"].map(|name| name.parse().expect("a name")).into();
        let ladder = Preset::Routine.ladder(&cohorts);
        let size = |name: &str| CohortSize { cohort: name.parse().expect("a name"), devices: 5 };
        assert!(fits_stages(&[size("dogfood"), size("general")], &ladder).is_ok());
        let slip = fits_stages(&[size("general"), size("dogfoot")], &ladder).expect_err("a slip");
        let text = slip.to_string();
        assert!(
            text.starts_with("no stage has the cohort `dogfoot`\nhint: there is `dogfood`"),
            "{text}"
        );
    }
}
