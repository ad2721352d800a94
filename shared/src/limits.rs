//! Every number that bounds what is taken from outside, with the reason for its value.

/// A check-in or enrolment body: a letter with thirteen groups for each of eight rollouts and full
/// outcomes stays below 16 KiB; four times that leaves room for later versions.
pub const LETTER_BYTES: usize = 64 * 1024;
/// A directive: orders with sixteen grants of three signatures each stay below 16 KiB.
pub const DIRECTIVE_BYTES: usize = 64 * 1024;
/// A rollout file (design: at most 64 KiB): what a device reads for one product and model.
pub const ROLLOUT_FILE_BYTES: usize = 64 * 1024;
/// A release manifest with its signed list of files: 20,000 files of 150 bytes.
pub const MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// A recall: sixteen steps and a reason stay below 4 KiB.
pub const RECALL_BYTES: usize = 16 * 1024;
/// A policy: a thousand tenants and a hundred people stay below 400 KiB.
pub const POLICY_BYTES: usize = 1024 * 1024;
/// A signed act with its signatures: text of 8 KiB and a few dozen signatures.
pub const ACT_BYTES: usize = 32 * 1024;
/// Signatures on one act: more people than any policy asks for.
pub const ACT_SIGNATURES: usize = 32;
/// People in a policy.
pub const PEOPLE: usize = 1_000;
/// Tenants in a policy.
pub const TENANTS: usize = 10_000;
/// Products in a policy: a device asks for its own only, but a role each is listed in targets.
pub const PRODUCTS: usize = 256;
/// Stages of a ladder, and so cohorts of a product.
pub const STAGES: usize = 16;
/// Products that one device runs: a letter names each of them.
pub const DEVICE_PRODUCTS: usize = 8;
/// Rollouts that one letter names: those that a device has open questions about.
pub const LETTER_ROLLOUTS: usize = 8;
/// Reasons that a letter carries for one rollout: one for each question.
pub const LETTER_REASONS: usize = 16;
/// Outcomes in one letter; a device with more sends the rest in the next.
pub const LETTER_OUTCOMES: usize = 16;
/// Probe results in one letter.
pub const LETTER_BEACONS: usize = 32;
/// Characters of a free text in a letter, such as an outcome's detail.
pub const LETTER_TEXT: usize = 200;
/// Characters of a reason that a device keeps for its own owner: a refusal of the server with its hint,
/// or a stop with the longest reason and what stands around it.
pub const OWNER_TEXT: usize = 1_000;
/// Rollouts of one product in a rollout file: those in progress and the last eight complete ones of
/// each of a few channels.
pub const FILE_ROLLOUTS: usize = 32;
/// Numbered stops in a rollout file that no lift has ended.
pub const FILE_STOPS: usize = 256;
/// Groups with a limit of their own in one rollout: 12 bytes each, 24 KiB together.
pub const FILE_GROUPS: usize = 2_000;
/// The last complete releases of a channel that a rollout file lists.
pub const FILE_COMPLETE: usize = 8;
/// The longest coverage list that any ladder may allow: at ten thousand devices 200 names leave a tenth of
/// the groups without one, and 300 none. 4 bytes each.
pub const COVERAGE: usize = 400;
/// Grants that one device carries.
pub const GRANTS: usize = 16;
/// Loosenings that one device carries: one for each of its products, for windows and for freezes, of its
/// own and of its tenant.
pub const LOOSENINGS: usize = 32;
/// Maintenance windows of one device.
pub const WINDOWS: usize = 32;
/// Freezes of one device.
pub const FREEZES: usize = 32;
/// Files in one artifact: an operating system image's tree.
pub const ARTIFACT_FILES: usize = 200_000;
/// The largest artifact, packed or unpacked: 64 GiB.
pub const ARTIFACT_BYTES: u64 = 64 << 30;
/// Probes of one release.
pub const PROBES: usize = 16;
/// A device's clock may run ahead of the server's by this much before the server says so: two days,
/// more than any mistaken time zone.
pub const CLOCK_SKEW_S: u64 = 2 * 86_400;
