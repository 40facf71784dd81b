//! `cargo +nightly fuzz run session corpus/bytes`

#![no_main]

mod bytes;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bytes::run(data);
});
