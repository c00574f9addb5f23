//! The limit on open files: raised to what the system allows, because every client takes one and so does every segment.
#![allow(unsafe_code)]

/// Below this limit a warning is logged: each client takes one file, each segment two.
const FILES_WANTED: libc::rlim_t = 65_536;

/// Raises the soft limit on open files to the hard limit; failing costs connections, not correctness.
pub fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        tracing::warn!("the limit on open files is unknown: {}", std::io::Error::last_os_error());
        return;
    }
    let mut files = limit.rlim_cur;
    if files < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit that the call only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
            files = limit.rlim_cur;
        } else {
            tracing::warn!("the limit on open files stays as it is: {}", std::io::Error::last_os_error());
        }
    }
    if files < FILES_WANTED {
        tracing::warn!(
            files,
            "at most {files} files may be open, which bounds clients and segments: raise the hard limit (ulimit -Hn, or LimitNOFILE of the service) to {FILES_WANTED} or more"
        );
    }
}
