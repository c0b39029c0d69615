//! Memory for tensors: zeroed pages that do not move, with checked typed views, and files mapped for reading.
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;

/// Everything in a region starts at a multiple of this.
pub const ALIGN: usize = 64;

/// Types of tensor elements as memory holds them: any bits are a value.
pub trait Element: Copy + Send + Sync + sealed::Sealed + 'static {}
impl Element for f32 {}
impl Element for i32 {}
impl Element for u16 {}
impl Element for u8 {}
mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for i32 {}
    impl Sealed for u16 {}
    impl Sealed for u8 {}
}

/// Zeroed anonymous pages, which keep their address until they are dropped.
#[derive(Debug)]
pub struct Region {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a region owns its pages as a boxed slice would.
unsafe impl Send for Region {}
// SAFETY: shared references to a region only read.
unsafe impl Sync for Region {}

impl Region {
    /// `len` bytes of zeros, aligned to a page. Pages are taken from the system as they are touched.
    pub fn new(len: usize) -> io::Result<Region> {
        let len = len.max(1);
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping touches no existing memory.
        let ptr = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
        if ptr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if len >= 1 << 22 {
            // Large pages save time where the system grants them; where it does not, nothing changes.
            // SAFETY: advice on the mapping just made.
            unsafe { libc::madvise(ptr, len, libc::MADV_HUGEPAGE) };
        }
        NonNull::new(ptr.cast()).map(|ptr| Region { ptr, len }).ok_or_else(io::Error::last_os_error)
    }

    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        false
    }
    /// The address of the first byte.
    pub fn address(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// `len` elements at byte `at`.
    ///
    /// # Panics
    /// If they do not lie in the region or are not aligned, which is a bug in the caller's layout.
    pub fn slice<T: Element>(&self, at: usize, len: usize) -> &[T] {
        self.check::<T>(at, len);
        // SAFETY: in bounds and aligned, as just checked; any bits are a T; `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.address().add(at).cast(), len) }
    }

    /// `len` elements at byte `at`, for writing.
    ///
    /// # Panics
    /// If they do not lie in the region or are not aligned, which is a bug in the caller's layout.
    pub fn slice_mut<T: Element>(&mut self, at: usize, len: usize) -> &mut [T] {
        self.check::<T>(at, len);
        // SAFETY: in bounds and aligned, as just checked; any bits are a T; `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.address().add(at).cast(), len) }
    }

    fn check<T>(&self, at: usize, len: usize) {
        let end = len.checked_mul(size_of::<T>()).and_then(|n| n.checked_add(at));
        assert!(
            end.is_some_and(|end| end <= self.len) && at.is_multiple_of(align_of::<T>()),
            "bug: {len} elements at byte {at} of a region of {} bytes",
            self.len
        );
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference to it outlives self.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

/// A file mapped for reading.
pub fn map_file(path: &Path) -> io::Result<memmap2::Mmap> {
    let file = File::open(path)?;
    // SAFETY: the mapping is private and only read. Another process that truncates the file while it is mapped ends this
    // one with SIGBUS; nothing that was checked is read a second time where that matters (code is copied, then hashed).
    unsafe { memmap2::Mmap::map(&file) }
}

/// A part of a file mapped for reading.
pub fn map_part(path: &Path, part: Range<u64>) -> io::Result<memmap2::Mmap> {
    let file = File::open(path)?;
    let bytes = part.end.checked_sub(part.start).and_then(|n| usize::try_from(n).ok());
    let whole = file.metadata()?.len() >= part.end;
    let ends = || io::Error::new(io::ErrorKind::UnexpectedEof, "it ends before the part that was to be read");
    let bytes = bytes.filter(|_| whole).ok_or_else(ends)?;
    // SAFETY: as for a whole file, and the part lies in it.
    unsafe { memmap2::MmapOptions::new().offset(part.start).len(bytes).map(&file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zeroed_aligned_and_typed() {
        let mut r = Region::new(5000).unwrap();
        assert!(r.address().addr().is_multiple_of(ALIGN) && r.slice::<u8>(0, 5000).iter().all(|b| *b == 0));
        r.slice_mut::<f32>(64, 2).copy_from_slice(&[1.0, -2.0]);
        assert_eq!(r.slice::<i32>(64, 1), [0x3f80_0000]);
    }

    #[test]
    #[should_panic(expected = "bug: 2 elements at byte 4996")]
    fn a_view_beyond_the_end_is_refused() {
        Region::new(5000).unwrap().slice::<f32>(4996, 2);
    }
}
