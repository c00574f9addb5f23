//! Runs a case under valgrind, twice, and gives the instructions of one iteration.

use std::process::Command;

use crate::cases::Case;

/// What a case took.
pub(crate) struct Measured {
    /// Instructions of one iteration, of all threads; what the kernel does is not among them.
    pub(crate) instructions: u64,
    /// What valgrind's processor can do: another one runs other code.
    pub(crate) processor: String,
}

/// Extensions by which checksums, searches and copies choose their code.
pub(crate) fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&str, bool); 0] = [];
    let found = found.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name);
    [std::env::consts::ARCH].into_iter().chain(found).collect::<Vec<_>>().join(" ")
}

/// Instructions of one iteration of `case`.
pub(crate) fn measure(case: &Case) -> Result<Measured, String> {
    let (few, processor) = run(case, case.few)?;
    let (many, _) = run(case, case.many)?;
    let more =
        many.checked_sub(few).ok_or_else(|| format!("{}: more iterations took fewer instructions", case.name))?;
    Ok(Measured { instructions: more / (case.many - case.few), processor })
}

fn run(case: &Case, iterations: u64) -> Result<(u64, String), String> {
    let binary = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    // Cachegrind without its caches only counts, which is cheaper than what callgrind does.
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--branch-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(binary).args(["--case", case.name, "--iterations", &iterations.to_string()]);
    // The length of the environment moves the stack, and with it how copies are aligned.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = valgrind.env_clear().env("PATH", path).output();
    let output = output.map_err(|error| format!("valgrind: {error}; tests/setup installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {}\n{said}", case.name, output.status));
    }
    let counted = counted(&said).ok_or_else(|| format!("{}: no count in what valgrind says:\n{said}", case.name))?;
    Ok((counted, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

/// The number of `==1234== I   refs:      12,345,678`.
fn counted(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("I ") && line.contains("refs:"))?;
    let digits: String = line.split("refs:").nth(1)?.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        let said = "==7== Cachegrind, a cache profiler\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(counted(said), Some(1_234_567));
        assert_eq!(counted("==7== nothing"), None);
    }
}
