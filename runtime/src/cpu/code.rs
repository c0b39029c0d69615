//! Machine code in memory: copied to fresh pages, which are then made executable and never writable again.
use super::memory::Region;
use std::io;

/// What every generated kernel is: for unit in begin..end. One pointer an operand, each at its element 0.
pub type KernelFn = unsafe extern "C" fn(operands: *const *mut u8, begin: i64, end: i64);

/// Executable pages.
#[derive(Debug)]
pub struct Text {
    region: Region,
    len: usize,
}

impl Text {
    /// Copies code and makes the copy executable. `check` sees the very bytes that will run.
    pub fn new<E>(code: &[u8], check: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<Text, CodeError<E>> {
        let mut region = Region::new(code.len()).map_err(CodeError::Memory)?;
        region.slice_mut::<u8>(0, code.len()).copy_from_slice(code);
        // SAFETY: the region's own pages; from here on nothing writes to them.
        let sealed = unsafe { libc::mprotect(region.address().cast(), region.len(), libc::PROT_READ) };
        if sealed != 0 {
            return Err(CodeError::Memory(io::Error::last_os_error()));
        }
        check(region.slice(0, code.len())).map_err(CodeError::Refused)?;
        // SAFETY: as above; the pages are read-only since before the check.
        let done = unsafe { libc::mprotect(region.address().cast(), region.len(), libc::PROT_READ | libc::PROT_EXEC) };
        match done {
            0 => Ok(Text { region, len: code.len() }),
            _ => Err(CodeError::Memory(io::Error::last_os_error())),
        }
    }

    /// The kernel whose code starts here, if that is inside.
    pub fn kernel(&self, offset: u64) -> Option<KernelFn> {
        let offset = usize::try_from(offset).ok().filter(|o| *o < self.len)?;
        // SAFETY: an address of executable pages. That the code there is a kernel is the word of the artifact, whose
        // hash was checked; calling it is unsafe and says so.
        Some(unsafe { std::mem::transmute::<*mut u8, KernelFn>(self.region.address().add(offset)) })
    }
}

/// Why code was not made executable.
#[derive(Debug)]
pub enum CodeError<E> {
    Memory(io::Error),
    Refused(E),
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn code_runs_where_it_was_copied() {
        // mov rax, [rdi]; mov [rax], esi; mov [rax + 4], edx; ret
        let code = [0x90, 0x48, 0x8b, 0x07, 0x89, 0x30, 0x89, 0x50, 0x04, 0xc3];
        let text = Text::new(&code, |seen| if seen == code { Ok(()) } else { Err(()) }).unwrap();
        let mut out = [0i32; 2];
        let operands = [out.as_mut_ptr().cast::<u8>()];
        // SAFETY: the code above writes begin and end to its operand, two i32.
        unsafe { text.kernel(1).unwrap()(operands.as_ptr(), 7, 9) };
        assert_eq!(out, [7, 9]);
        assert!(text.kernel(10).is_none());
    }

    #[test]
    fn refused_code_is_not_mapped() {
        assert!(matches!(Text::new(&[0xc3], |_| Err("no")), Err(CodeError::Refused("no"))));
    }

    #[test]
    fn no_page_is_both_writable_and_executable() {
        let text = Text::new(&[0xc3; 5000], |_| Ok::<(), ()>(())).unwrap();
        let start = format!("{:x}-", text.region.address().addr());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|l| l.starts_with(&start)).unwrap();
        assert!(line.contains("r-xp"), "{line}");
    }
}
