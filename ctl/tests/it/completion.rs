//! `margayctl completion`.

use std::process::Command;

use assert_cmd::cargo::cargo_bin;

fn script(shell: &str) -> String {
    let output = Command::new(cargo_bin!("margayctl"))
        .args(["completion", shell])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_shell_learns_the_words() {
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        for word in ["status", "policy", "eval", "manifests", "kubeconfig", "context"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        assert!(!script.contains("raw"), "{shell} offers what is hidden");
    }
}

#[test]
fn bash_completes_them() {
    let complete = |words: &str| {
        let ask = format!(
            "COMP_WORDS=(margayctl {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _margayctl margayctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        let output = bash
            .args(["-c", &format!("{}\n{ask}", script("bash"))])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("sta"), "status");
    assert_eq!(complete("bgp p"), "peers");
    assert_eq!(complete("policy eval --manif"), "--manifests");
    assert_eq!(complete("status --output j"), "json");
}
