//! Bytes that become Python's, copied once and without the GIL where that may take long.
//!
//! PyO3's own way to a new `bytes` writes zeros into it first: for a large one that is most of the work,
//! since the system has to find memory for each of its pages, and nothing is fetched meanwhile. And
//! the stable ABI has no buffers before Python 3.11. But it has views of memory, and they can be
//! assigned to parts of one another: so a page becomes a view for the time of one assignment.
#![allow(
    unsafe_code,
    reason = "new bytes are filled in place, and a view of Rust's memory is made, by calls of Python's C API"
)]

use std::ffi::c_int;
use std::mem::{MaybeUninit, take};
use std::{ptr, slice};

use pyo3::exceptions::{PyOverflowError, PySystemError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PySlice};
use pyo3::{ffi, intern};
use rustix::mm::Advice;

/// `PyBUF_READ` of Python's headers.
const READ_ONLY: c_int = 0x100;

/// From this length on, new memory is asked for in huge pages. Below it the interpreter often has some
/// already.
const LARGE_BYTES: usize = 4 * 1024 * 1024;
/// A huge page.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// What is left of a new `bytes` to be filled.
pub(crate) struct Room<'a>(&'a mut [MaybeUninit<u8>]);

impl Room<'_> {
    /// Adds bytes; there must be room for them.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let (part, rest) = take(&mut self.0).split_at_mut(bytes.len());
        part.write_copy_of_slice(bytes);
        self.0 = rest;
    }
}

/// A `bytes` of `length`, which `fill` must fill to its end.
pub(crate) fn filled(
    py: Python<'_>,
    length: usize,
    fill: impl FnOnce(&mut Room<'_>) -> PyResult<()>,
) -> PyResult<Bound<'_, PyBytes>> {
    let size = isize::try_from(length).map_err(too_large)?;
    // SAFETY: without a text to copy the call makes a `bytes` of that size which nobody else has, or
    // tells an error by a null pointer.
    let bytes = unsafe {
        let object = ffi::PyBytes_FromStringAndSize(ptr::null(), size);
        Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>()
    };
    // SAFETY: the object's bytes are `length` ones from there on, they need not be initialised, and
    // they are written before anybody sees the object: it is only returned when there is no room left.
    let room = unsafe {
        let start = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<MaybeUninit<u8>>();
        slice::from_raw_parts_mut(start, length)
    };
    if length >= LARGE_BYTES {
        prefer_huge_pages(room);
    }
    let mut room = Room(room);
    fill(&mut room)?;
    if room.0.is_empty() {
        Ok(bytes)
    } else {
        let left = room.0.len();
        Err(PySystemError::new_err(format!("{left} bytes are missing")))
    }
}

/// Lets the system give the memory in huge pages: one fault instead of 512.
fn prefer_huge_pages(room: &mut [MaybeUninit<u8>]) {
    let start = room.as_mut_ptr();
    let skipped = start.align_offset(HUGE_PAGE_BYTES).min(room.len());
    let length = (room.len() - skipped) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    // SAFETY: the range lies within the slice, and the advice changes no byte of it. A system that
    // cannot take it gives small pages, as before.
    let _ =
        unsafe { rustix::mm::madvise(start.add(skipped).cast(), length, Advice::LinuxHugepage) };
}

/// Copies bytes into a view of bytes, from its index `start` on.
pub(crate) fn copy(bytes: &[u8], target: &Bound<'_, PyMemoryView>, start: usize) -> PyResult<()> {
    let py = target.py();
    let length = isize::try_from(bytes.len()).map_err(too_large)?;
    let start = isize::try_from(start).map_err(too_large)?;
    // SAFETY: `bytes` is valid for `length` bytes until this function returns, and the view, which is
    // read-only, is released before. Nobody gets hold of it meanwhile: the assignment of one memory
    // view to another copies and keeps nothing.
    let source = unsafe {
        let memory = bytes.as_ptr().cast_mut().cast();
        let view = ffi::PyMemoryView_FromMemory(memory, length, READ_ONLY);
        Bound::from_owned_ptr_or_err(py, view)
    }?;
    let copied = target.set_item(PySlice::new(py, start, start + length, 1), &source);
    source.call_method0(intern!(py, "release"))?;
    copied
}

fn too_large(_: std::num::TryFromIntError) -> PyErr {
    PyOverflowError::new_err("there is no room for so many bytes")
}
