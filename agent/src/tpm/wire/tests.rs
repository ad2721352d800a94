//! The commands byte for byte, spelled out by the tables of the specification, and answers that no TPM
//! would give.

use super::*;

const INDEX: u32 = 0x0182_abcd;
const LABEL: Label = [0x4c; 32];

#[test]
fn the_storage_root_key_is_asked_for_by_the_template_that_everybody_uses() {
    let expected = [
        "8002 00000083 00000131", // TPM_ST_SESSIONS, size, TPM_CC_CreatePrimary
        "40000001",               // TPM_RH_OWNER
        EMPTY_PASSWORD,
        "0004 0000 0000",          // TPM2B_SENSITIVE_CREATE: no password, no data
        "005a",                    // TPM2B_PUBLIC
        "0023 000b 00030472 0000", // ECC, SHA-256, attributes, no policy
        "0006 0080 0043",          // AES-128 in CFB
        "0010 0003 0010",          // no scheme, P-256, no derivation
        "0020 0000000000000000000000000000000000000000000000000000000000000000",
        "0020 0000000000000000000000000000000000000000000000000000000000000000",
        "0000 00000000", // no outside information, no PCRs
    ];
    assert_eq!(create_primary().as_slice(), bytes(&expected));
}

#[test]
fn a_secret_is_sealed_unsealed_and_flushed() {
    let expected = [
        "8002 0000003a 00000153", // TPM_CC_Create
        "81000001",
        EMPTY_PASSWORD,
        "0007 0000 0003 010203",                  // no password; the secret
        "000e 0008 000b 00000452 0000 0010 0000", // KEYEDHASH, SHA-256, attributes, no scheme
        "0000 00000000",
    ];
    assert_eq!(create(STORAGE_ROOT, &[1, 2, 3]).as_slice(), bytes(&expected));
    let sealed = Sealed { public: vec![7, 8], private: vec![9] };
    let expected = ["8002 00000022 00000157 80000000", EMPTY_PASSWORD, "0001 09 0002 0708"];
    assert_eq!(load(0x8000_0000, &sealed).as_slice(), bytes(&expected));
    let expected = ["8002 0000001b 0000015e 80000001", EMPTY_PASSWORD];
    assert_eq!(unseal(0x8000_0001).as_slice(), bytes(&expected));
    assert_eq!(flush(0x8000_0001).as_slice(), bytes(&["8001 0000000e 00000165 80000001"]));
    let expected = bytes(&["8001 0000000e 00000173 81000001"]);
    assert_eq!(read_public(STORAGE_ROOT).as_slice(), expected);
}

#[test]
fn a_counter_is_made_stepped_read_and_given_back() {
    let label = "4c".repeat(32);
    let secret = "55".repeat(32);
    let password: Password = Zeroizing::new([0x55; 32]);
    // TPM_RS_PW, no nonce, no attributes, the password of the counter.
    let session = format!("00000029 40000009 0000 00 0020 {secret}");
    let auth = format!("0020 {secret}");
    let public = format!("002e 0182abcd 000b 02040014 0020 {label} 0008");
    let expected = ["8002 0000006d 0000012a 40000001", EMPTY_PASSWORD, &auth, &public];
    assert_eq!(define_counter(INDEX, &password, &LABEL).as_slice(), bytes(&expected));
    let expected = ["8002 0000003f 00000134 0182abcd 0182abcd", &session];
    assert_eq!(step_counter(INDEX, &password).as_slice(), bytes(&expected));
    let expected = ["8002 00000043 0000014e 0182abcd 0182abcd", &session, "0008 0000"];
    assert_eq!(read_counter(INDEX, &password).as_slice(), bytes(&expected));
    let expected = ["8002 0000001f 00000122 40000001 0182abcd", EMPTY_PASSWORD];
    assert_eq!(undefine_counter(INDEX).as_slice(), bytes(&expected));
    assert_eq!(counter_public(INDEX).as_slice(), bytes(&["8001 0000000e 00000169 0182abcd"]));
}

#[test]
fn answers_are_taken_apart() {
    // A handle, two bytes of parameters, and the session's part.
    let made = bytes(&["8002 00000019 00000000 80ffffff 00000002 abcd 0000 01 0000"]);
    let read = answer(&made, Handle::Made).expect("right");
    assert_eq!((read.handle, read.parameters), (Some(0x80ff_ffff), &[0xab, 0xcd][..]));
    let plain = bytes(&["8001 0000000d 00000000 0001 02"]);
    let read = answer(&plain, Handle::None).expect("right");
    assert_eq!((read.handle, read.parameters), (None, &[0, 1, 2][..]));

    let sealed = created(&bytes(&["0002 0102 0003 030405 ffff"])).expect("right");
    assert_eq!(sealed, Sealed { public: vec![3, 4, 5], private: vec![1, 2] });
    assert_eq!(Sealed::read(&sealed.to_bytes()), Ok(sealed));
    assert_eq!(secret(&bytes(&["0002 0102"])).expect("right").as_slice(), [1, 2]);
    assert_eq!(count(&bytes(&["0008 0000000000000102"])), Ok(258));
}

#[test]
fn a_counter_is_known_by_its_label() {
    let label = "4c".repeat(32);
    // As it comes back: written since, and with its name behind it.
    let public = format!("002e 0182abcd 000b 22040014 0020 {label} 0008 0022 000b {label}");
    assert_eq!(is_counter(&bytes(&[&public]), INDEX, &LABEL), Ok(true));
    assert_eq!(is_counter(&bytes(&[&public]), INDEX, &[0x4d; 32]), Ok(false));
    assert_eq!(is_counter(&bytes(&[&public]), INDEX + 1, &LABEL), Ok(false));
    let ordinary = public.replace("22040014", "22040004");
    assert_eq!(is_counter(&bytes(&[&ordinary]), INDEX, &LABEL), Ok(false));
    let somebodys = "000e 0182abcd 000b 22040014 0000 0008";
    assert_eq!(is_counter(&bytes(&[somebodys]), INDEX, &LABEL), Ok(false));
}

#[test]
fn a_no_is_told_whatever_parameter_it_is_about() {
    for (code, kind, word) in [
        ("000001df", Code::INTEGRITY, "another TPM"),
        ("0000018b", Code::HANDLE, "nothing of this number"),
        ("000009a2", Code::BAD_AUTH, "password"),
        ("0000014b", 0x14b, "full"),
        ("00000101", 0x101, "code 0x101"),
    ] {
        let no = bytes(&["8001 0000000a", code]);
        let Err(WireError::Refused(said)) = answer(&no, Handle::Made) else { panic!("{code}") };
        assert_eq!(said.kind(), kind, "{code}");
        assert!(said.to_string().contains(word), "{said}");
    }
}

#[test]
fn what_no_tpm_says_is_refused() {
    for (answered, handle) in [
        ("", Handle::None),
        ("8001 0000000a", Handle::None),                   // no code
        ("8001 0000000b 00000000", Handle::None),          // shorter than it says
        ("8001 0000000a 00000000 00", Handle::None),       // longer than it says
        ("8001 00000009 000000", Handle::None),            // shorter than a header
        ("8001 0000000a 00000000", Handle::Made),          // names nothing
        ("8003 0000000e 00000000 00000000", Handle::None), // another tag
        ("8002 0000000e 00000000 00000001", Handle::None), // parameters beyond its end
        ("8002 0000000e 00000000 ffffffff", Handle::None),
    ] {
        let message = bytes(&[answered]);
        let read = answer(&message, handle);
        assert!(matches!(read, Err(WireError::Malformed(_))), "{answered}: {read:?}");
    }
    assert_eq!(announced(&[0x80, 1, 0, 0]), Ok(None), "it may still come");
    assert!(announced(&bytes(&["8001 00001001"])).is_err(), "more than is ever read");

    assert!(created(&bytes(&["0001 01 0401"])).is_err(), "more than a blob has");
    assert!(created(&bytes(&["0002 01"])).is_err());
    assert!(secret(&bytes(&["0001 01 00"])).is_err(), "something follows");
    assert!(secret(&[&[0, 129][..], &[0; 129]].concat()).is_err(), "longer than a secret");
    assert!(count(&bytes(&["0004 00000001"])).is_err());
    assert!(count(&bytes(&["0009 000000000000000001"])).is_err());
    assert!(Sealed::read(&bytes(&["0001 01 0001 01 00"])).is_err(), "something follows");
}

/// TPM_RS_PW, no nonce, no attributes, no password.
const EMPTY_PASSWORD: &str = "00000009 40000009 0000 00 0000";

/// The bytes of parts in hex, blanks between them.
fn bytes<T: AsRef<str>>(parts: &[T]) -> Vec<u8> {
    let joined: String = parts.iter().map(AsRef::as_ref).collect();
    hex::decode(joined.replace(' ', "")).expect("hex")
}
