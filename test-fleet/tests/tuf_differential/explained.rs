//! Where the two clients differ, and why that is right.

use std::collections::BTreeSet;

use super::clients::Refusal;

/// Who gives less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The agent's client is the stricter one.
    OursRefuses,
    /// The referee is the stricter one.
    TheirsRefuses,
    /// Both give bytes, and not the same.
    BothGive,
}

/// One class of difference.
pub(crate) struct Explained {
    pub(crate) side: Side,
    /// The kind of error of the one who refuses.
    pub(crate) kind: &'static str,
    /// What its error says besides.
    pub(crate) says: &'static str,
    /// One of these must have been done in the case; with none, anything may have been.
    pub(crate) after: &'static [&'static str],
    /// This must have been done as well, if it names anything.
    pub(crate) also: &'static str,
    pub(crate) reason: &'static str,
}

impl Explained {
    pub(crate) fn covers(&self, side: Side, why: &Refusal, done: &BTreeSet<&'static str>) -> bool {
        self.side == side
            && self.kind == why.kind
            && why.text.contains(self.says)
            && (self.after.is_empty() || self.after.iter().any(|name| done.contains(name)))
            && (self.also.is_empty() || done.contains(self.also))
    }

    /// The same, where this was done as well.
    const fn with(self, also: &'static str) -> Self {
        Self { also, ..self }
    }
}

/// A difference in which the agent's client is the stricter one.
const fn stricter(
    kind: &'static str,
    says: &'static str,
    after: &'static [&'static str],
    reason: &'static str,
) -> Explained {
    Explained { side: Side::OursRefuses, kind, says, after, also: "", reason }
}

/// A difference in which the agent's client gives more, and may.
const fn wider(
    kind: &'static str,
    says: &'static str,
    after: &'static [&'static str],
    reason: &'static str,
) -> Explained {
    Explained { side: Side::TheirsRefuses, kind, says, after, also: "", reason }
}

const BY_VERSION_ALONE: &str = "A file is what its parent names if version, length and hashes \
    agree; the referee takes what it holds for it by the version alone (attack 9).";

const OUT_OF_SCOPE: &str = "A role is not asked about a path outside its scope, however broken it \
    is; the referee reads scopes in its own way, as said above.";

const FORGOTTEN: &str = "A root with other online keys makes a device forget what the old ones said \
    (specification 5.3.11, attack 8); the referee reads the timestamp again from its store if its \
    key stayed, and keeps it where a newer one has its version.";

/// What may lead to a version that stands for two contents, or is named with other pins.
const TWINS: &[&str] = &[
    "one version, two contents",
    "another version is named",
    "another length is named",
    "another hash is named",
    "no hashes are named",
    "a hash of unknown kind alone is named",
];

/// What gives an online role other keys, or another number of them.
const REKEYED: &[&str] = &[
    "online keys change",
    "an online key is added",
    "two must sign and two do",
    "two must sign and one does",
    "threshold above the keys",
    "threshold odd",
    "a key id listed twice",
    "a key with another type",
    "a key with another scheme",
    "key material that is none",
];

/// Every class of difference that is known. What is believed by ours and not by the referee is either
/// a part of TUF that the referee lacks, or nothing that anything rests on.
pub(crate) const EXPLAINED: &[Explained] = &[
    stricter(
        "ExpiresNow",
        "",
        &[],
        "A file is good until before its expiry (specification 5.3.10: expiry is later \
         than now); the referee lets the last second pass.",
    ),
    stricter(
        "SeenExpired",
        "",
        &["the clock is wrong"],
        "A timestamp once seen expired stays refused until a newer one comes, wherever \
         the clock is set to since (attack 36).",
    ),
    stricter(
        "Signatures",
        "",
        &["one key under two ids signs twice", "delegated key under two ids"],
        "Keys count by their material: one key under two key ids is one signer (attack \
         16).",
    ),
    stricter(
        "Signatures",
        "valid: 0",
        &["a key with another type"],
        "A key counts only if type and scheme agree; the referee looks at the scheme \
         alone.",
    ),
    stricter(
        "Malformed/DuplicateSignature",
        "",
        &[
            "an unlisted key id signs twice",
            "an empty signature twice",
            "an empty signature besides",
        ],
        "Two signatures with one key id are refused whoever they claim to be by \
         (specification 4.2.1); the referee refuses them for listed keys that are not \
         empty.",
    ),
    stricter(
        "Malformed/TooManySignatures",
        "",
        &["a flood of signatures"],
        "The number of signatures is bounded.",
    ),
    stricter(
        "Malformed/Json",
        "occurs twice",
        &["a key twice before the true one", "a second signed part"],
        "A key that occurs twice means one thing to one reader and another to the next \
         (attack 21).",
    ),
    stricter(
        "Malformed/VersionZero",
        "",
        &["version 0", "version two back"],
        "Versions begin with 1.",
    ),
    stricter(
        "Malformed/Field",
        "threshold of 0",
        &["threshold 0"],
        "A root with a threshold of 0 in any role is never kept; the referee keeps it, \
         and refuses the files of that role (attack 16).",
    ),
    stricter(
        "Malformed/Field",
        "missing field",
        &["a role of the root is missing"],
        "A root without one of the four roles is never kept; the referee keeps it, and is \
         stuck with it.",
    ),
    stricter(
        "Malformed/Field",
        "missing field `snapshot.json`",
        &["an entry is missing"],
        "A timestamp that names no snapshot is never kept; the referee keeps it, and has \
         lost the last good one.",
    ),
    stricter(
        "Malformed/Delegations",
        "",
        &["delegations that are none"],
        "Delegations are a list of roles, or bins; the referee takes neither for an empty \
         list.",
    ),
    stricter(
        "Malformed/Delegation",
        "",
        &["a delegation of another scope"],
        "A delegation has either paths or hash prefixes; the referee takes one of two, \
         and none for nothing.",
    ),
    stricter(
        "NotInSnapshot",
        "",
        &["a role leaves the snapshot for good", "an entry is missing"],
        "A role that the snapshot does not list ends the search: passed over, its paths \
         would fall to the next role (attack 19).",
    ),
    stricter(
        "RoleName",
        "",
        &["a role with a reserved name", "a role whose name reaches out"],
        "A delegation to a role that cannot be ends the search, for the same reason; the \
         referee passes over it.",
    ),
    stricter(
        "Rollback",
        "",
        &[],
        "The snapshot that was seen last counts also after a newer timestamp came whose \
         snapshot did not: the referee cannot load it from its store any more once the \
         stored timestamp names another (attack 3).",
    ),
    stricter("Removed", "", &[], "The same, for an entry that vanishes."),
    stricter("Fetch/NotFound", "", TWINS, BY_VERSION_ALONE),
    stricter(
        "Unlisted",
        "",
        &["bins"],
        "Behind bins nobody else is asked (TAP 15); the referee does not know them and \
         goes on.",
    ),
    stricter(
        "Unlisted",
        "",
        &["a delegation of another scope"],
        "A star and a question mark are all that is special in a pattern; the referee \
         reads ranges in brackets as well.",
    ),
    Explained {
        side: Side::BothGive,
        kind: "OtherBytes",
        says: "",
        after: TWINS,
        also: "",
        reason: BY_VERSION_ALONE,
    },
    wider("Unlisted", "", &["bins"], "The referee does not know hash bins (TAP 15)."),
    wider(
        "Malformed",
        "invalid delegation path pattern",
        &["a delegation of another scope"],
        "A bracket is a letter like others in a pattern; to the referee it is half a \
         range.",
    ),
    wider(
        "Transport/None",
        "",
        &["a target's hash in other letters"],
        "Hexadecimal is the same number in large letters; the referee asks for the file \
         by the letters.",
    ),
    wider(
        "Json",
        "RoleKeys",
        &["an unknown role of the root"],
        "A role of the root that TUF does not define is not read, because nothing rests \
         on it.",
    ),
    wider(
        "Json",
        "MetaFile",
        &["an entry more that is no entry", "an entry is no entry"],
        "An entry of the timestamp that is not the snapshot's is not read, because \
         nothing rests on it.",
    ),
    wider(
        "Json",
        "",
        &["a key that is no key", "delegated to a key that is no key"],
        "A key of a form that is not known is left out, and the others must reach the \
         threshold (attack 21).",
    ),
    wider(
        "Unlisted",
        "",
        &["a delegation of another scope"],
        "A hash prefix is the same in large letters; the referee compares the letters.",
    ),
];

/// The same, for what no case of an ordinary run meets.
pub(crate) const RARE: &[Explained] = &[
    stricter(
        "ExpiredByFloor",
        "",
        &["the clock is wrong"],
        "Expiry is held against the floor that the last good refresh left, so that a clock set \
         back revives nothing (attack 36).",
    ),
    stricter("Fetch/TooLong", "", TWINS, BY_VERSION_ALONE),
    stricter("Hash", "", TWINS, BY_VERSION_ALONE),
    stricter("Length", "", TWINS, BY_VERSION_ALONE),
    stricter("Version", "", TWINS, BY_VERSION_ALONE),
    stricter("NoKnownHash", "", TWINS, BY_VERSION_ALONE),
    stricter("Signatures", "", &["one version, two contents"], BY_VERSION_ALONE),
    stricter("Malformed/Type", "snapshot", TWINS, BY_VERSION_ALONE),
    stricter("Expired", "role: \"beta\"", &["expired"], BY_VERSION_ALONE)
        .with("one version, two contents"),
    stricter(
        "Signatures",
        "",
        &["a circle of delegations", "one name delegated to twice"],
        "A role is verified with the keys of the delegation that led to it; the referee takes \
         those of the first delegation of that name.",
    ),
    wider("Json", "", &["a delegation of another scope"], OUT_OF_SCOPE),
    wider("IntegrityMismatch", "length", &["a delegation of another scope"], OUT_OF_SCOPE)
        .with("a file is too long"),
    wider("Expired", "role: \"timestamp\"", REKEYED, FORGOTTEN).with("one version, two contents"),
    wider("Rollback", "", REKEYED, FORGOTTEN),
    wider(
        "IntegrityMismatch",
        "snapshot removes",
        REKEYED,
        "The same, for an entry that vanishes.",
    ),
];
