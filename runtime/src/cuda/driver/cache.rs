//! Binaries of modules that were assembled before, in a folder: one file for each text, architecture and driver.
use super::context::Context;
use crate::cuda::device::DeviceError;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of the hash that a file starts with, which is that of the rest.
const HASH: usize = 32;

/// A folder of binaries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn new(folder: &Path) -> Cache {
        Cache { folder: folder.into() }
    }

    /// The binary of a text for a device, if it is there and whole.
    pub fn find(&self, context: &Context, ptx: &str) -> Option<Vec<u8>> {
        // One that cannot be read is one that is not there: it is made anew and written over.
        unwrap(&fs::read(self.path(context, ptx).ok()?).ok()?).map(<[u8]>::to_vec)
    }

    /// Keeps a binary, whole or not at all.
    pub fn keep(&self, context: &Context, ptx: &str, binary: &[u8]) -> Result<(), DeviceError> {
        let path = self.path(context, ptx)?;
        let unfinished = path.with_extension(format!("unfinished-{}", std::process::id()));
        let put = || {
            fs::create_dir_all(&self.folder)?;
            fs::write(&unfinished, wrap(binary))?;
            fs::rename(&unfinished, &path)
        };
        put().map_err(|e| DeviceError::Cache { path: path.clone(), what: e.to_string() })
    }

    fn path(&self, context: &Context, ptx: &str) -> Result<PathBuf, DeviceError> {
        let ((major, minor), (driver, part)) = (context.info.sm, context.api.version()?);
        let hash = blake3::hash(ptx.as_bytes()).to_hex();
        Ok(self.folder.join(format!("sm_{major}{minor}-{driver}.{part}-{hash}.cubin")))
    }
}

fn wrap(binary: &[u8]) -> Vec<u8> {
    [blake3::hash(binary).as_bytes().as_slice(), binary].concat()
}

fn unwrap(file: &[u8]) -> Option<&[u8]> {
    let (hash, binary) = file.split_at_checked(HASH)?;
    (blake3::hash(binary).as_bytes() == hash).then_some(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_binaries_are_taken() {
        let file = wrap(b"binary");
        assert_eq!(unwrap(&file), Some(&b"binary"[..]));
        for i in 0..file.len() {
            let mut damaged = file.clone();
            damaged[i] ^= 1;
            assert_eq!(unwrap(&damaged), None, "byte {i}");
            assert_eq!(unwrap(&file[..i]), None, "{i} bytes");
        }
    }
}
