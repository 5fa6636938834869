//! The table of scripts/claims_mutants against the sources: each mutation still finds its text.

#[test]
fn every_mutation_of_the_claims_finds_its_text() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/claims_mutants");
    let output = std::process::Command::new("python3")
        .args([script, "--check"])
        .output()
        .expect("scripts/test asks for python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
