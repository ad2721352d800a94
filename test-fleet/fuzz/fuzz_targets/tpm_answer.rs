#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lockgate_test_fleet::fuzz::tpm_answer(bytes));
