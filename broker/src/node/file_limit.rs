//! The limit on open files: raised to what the system allows, because every client takes one.
#![allow(unsafe_code)]

/// Raises the soft limit on open files to the hard limit; failing costs connections, not correctness.
pub fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 || limit.rlim_cur >= limit.rlim_max {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit that the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        tracing::debug!("the limit on open files stays as it is: {}", std::io::Error::last_os_error());
    }
}
