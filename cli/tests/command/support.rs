//! A folder for one test, and the command in it.
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that goes away with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lolm-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    pub fn write(&self, name: &str, data: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), data).unwrap();
        name.into()
    }
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Runs the command here; arguments are separated by spaces.
    pub fn lolm(&self, args: &str) -> Ran {
        self.lolm_args(&args.split_whitespace().collect::<Vec<_>>())
    }

    pub fn lolm_args(&self, args: &[&str]) -> Ran {
        let out = Command::new(env!("CARGO_BIN_EXE_lolm")).args(args).current_dir(&self.0).output().unwrap();
        Ran { out, args: args.join(" ") }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that is left behind in the temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a command did.
pub struct Ran {
    out: Output,
    args: String,
}

impl Ran {
    pub fn code(&self) -> Option<i32> {
        self.out.status.code()
    }
    pub fn stdout(&self) -> String {
        String::from_utf8(self.out.stdout.clone()).unwrap()
    }
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.out.stderr).into_owned()
    }

    /// It worked; what it printed.
    pub fn ok(&self) -> String {
        assert_eq!(self.code(), Some(0), "lolm {}\n{}", self.args, self.stderr());
        self.stdout()
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// It failed with exit code 1 and an error, without a backtrace, that says all of this.
    pub fn fails(&self, says: &[&str]) {
        let said = self.stderr();
        assert_eq!(self.code(), Some(1), "lolm {}\n{said}", self.args);
        let error =
            said.lines().position(|l| l.starts_with("error: ")).unwrap_or_else(|| panic!("{}: {said}", self.args));
        let error = said.lines().skip(error).collect::<Vec<_>>().join("\n");
        for word in says {
            assert!(error.contains(word), "lolm {}\n{error}\ndoes not say `{word}`", self.args);
        }
        for bad in ["panicked", "RUST_BACKTRACE", "bug", "Os {"] {
            assert!(!error.contains(bad), "lolm {}\n{error}", self.args);
        }
    }
}

/// Keys that make the demo's spec small enough for a test.
pub const SMALL: &str = "--d_model 16 --n_heads 2 --n_layers 1 --d_ff 32 --max_seq_len 32 --training.seq 16 --training.batch 2 \
     --memory.slot_dim 8 --memory.n_slots 4 --regime.n_codes 4 --regime.d_regime 4 --ssm.d_state 4 --loss.cpc_proj_dim 4 \
     --training.warmup 2";

/// A text of this many bytes.
pub fn prose(bytes: usize) -> String {
    lipsum::LIBER_PRIMUS.chars().filter(char::is_ascii).take(bytes).collect()
}

pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(case)
}
