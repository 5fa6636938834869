//! Every input of the committed corpus through its fuzz target, as an ordinary test.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod fuzz_targets;

use std::fs;
use std::path::Path;

use fuzz_targets::TARGETS;

#[test]
fn the_corpus_keeps_every_promise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(root.join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "fuzz/corpus/{name} is empty");
    }
}
