//! The submission of a script.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Error;

/// Gives `script` to `program`, SLURM's sbatch, and returns the number of the job. sbatch may take `patience`.
///
/// # Errors
/// If sbatch is not there, does not end, or takes no job, with what it says.
pub fn submit(program: &OsStr, script: &Path, patience: Duration) -> Result<String, Error> {
    let child = Command::new(program)
        .arg("--parsable")
        .arg(script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::NoSbatch)?;
    let id = Pid::from_child(&child);
    let (tell, ended) = mpsc::channel();
    // It ends with sbatch, and sbatch with the patience.
    let waiting = thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(patience) else {
        let _ = kill_process(id, Signal::KILL);
        return Err(Error::Silent { patience });
    };
    let _ = waiting.join();
    let output = output.map_err(Error::NoSbatch)?;
    let said = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let complaints = said(&output.stderr);
    if !output.status.success() {
        return Err(Error::Refused {
            status: output.status.to_string(),
            said: complaints,
        });
    }
    if !complaints.is_empty() {
        tracing::warn!("sbatch: {}", shardtool::Escaped::new(&complaints));
    }
    // "12", or "12;cluster" where there are several clusters.
    let answer = said(&output.stdout);
    let number = answer.split(';').next().unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::NoNumber { said: answer });
    }
    Ok(number.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Submits through a program that does what `text` says.
    fn through(text: &str, patience: Duration) -> Result<String, Error> {
        let folder = tempfile::tempdir().unwrap();
        let (program, aside) = (folder.path().join("sbatch"), folder.path().join("aside"));
        fs::write(&aside, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&aside, &program).unwrap();
        submit(program.as_os_str(), Path::new("the script"), patience)
    }

    #[test]
    fn what_sbatch_says_is_the_job_or_the_reason() {
        let long = Duration::from_secs(900);
        let taken = through(
            r#"[ "$1" = --parsable ] && [ "$2" = "the script" ] && echo "12;here""#,
            long,
        );
        assert_eq!(taken.unwrap(), "12");

        let text = "echo 'sbatch: error: Invalid partition' >&2; echo >&2; exit 1";
        let error = through(text, long).unwrap_err().to_string();
        assert_eq!(
            error,
            "sbatch ended with exit status: 1: sbatch: error: Invalid partition"
        );

        for text in ["true", "echo Submitted batch job 12", "echo 1x"] {
            let error = through(text, long).unwrap_err();
            assert!(matches!(error, Error::NoNumber { .. }), "{error}");
        }
        let missing = submit(OsStr::new("/nonexistent/sbatch"), Path::new("x"), long);
        assert!(matches!(missing, Err(Error::NoSbatch(_))));
    }

    #[test]
    fn sbatch_is_not_waited_for_without_end() {
        let error = through("exec sleep 900", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }
}
