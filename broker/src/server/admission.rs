//! Connection limits: `max.connections`, `max.connections.per.ip` and its overrides.
//!
//! A connection above a limit is closed before any byte of it is read; one that is there when a limit falls stays. May not know: requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::NetworkConfig;

/// Kafka's limits on the number of connections.
#[derive(Debug, Clone)]
pub struct AdmissionLimits {
    /// `max.connections`.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub per_ip_max: usize,
    /// `max.connections.per.ip.overrides`.
    pub per_ip_overrides: HashMap<IpAddr, usize>,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self { connections_max: usize::MAX, per_ip_max: usize::MAX, per_ip_overrides: HashMap::new() }
    }
}

impl AdmissionLimits {
    /// The limits that settings name.
    #[must_use]
    pub fn configured(network: &NetworkConfig) -> Self {
        Self {
            connections_max: network.connections_max,
            per_ip_max: network.connections_per_ip_max,
            per_ip_overrides: network.connections_per_ip_overrides.clone(),
        }
    }
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `max.connections` is reached.
    #[error("max.connections ({0}) is reached")]
    Total(usize),
    /// The address has reached its limit of connections.
    #[error("max.connections.per.ip ({0}) is reached")]
    PerIp(usize),
}

/// Counts connections, in total and by address.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    limits: Mutex<AdmissionLimits>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// One admitted connection; counted until dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Admission,
    ip: IpAddr,
}

impl Admission {
    /// A counter with these limits and no connection.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        Self(Arc::new(Inner { limits: Mutex::new(limits), counts: Mutex::default() }))
    }

    /// Sets the limits for the connections to come.
    pub fn set_limits(&self, limits: AdmissionLimits) {
        *self.0.limits.lock() = limits;
    }

    /// Admits a connection from `ip`, or returns the limit that is reached.
    pub fn admit(&self, ip: IpAddr) -> Result<Admitted, Refused> {
        // An IPv4 client on a dual-stack socket is the same client as on an IPv4 socket.
        let ip = ip.to_canonical();
        let limits = self.0.limits.lock();
        let mut counts = self.0.counts.lock();
        if counts.total >= limits.connections_max {
            return Err(Refused::Total(limits.connections_max));
        }
        let allowed = limits.per_ip_overrides.get(&ip).copied().unwrap_or(limits.per_ip_max);
        if counts.by_ip.get(&ip).copied().unwrap_or(0) >= allowed {
            return Err(Refused::PerIp(allowed));
        }
        counts.total += 1;
        *counts.by_ip.entry(ip).or_default() += 1;
        Ok(Admitted { admission: self.clone(), ip })
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.counts.lock().total
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.0.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(count) = counts.by_ip.get_mut(&self.ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_in_total_and_per_address_and_are_given_back() {
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let two: IpAddr = "10.0.0.2".parse().unwrap();
        let admission = Admission::new(AdmissionLimits {
            connections_max: 3,
            per_ip_max: 1,
            per_ip_overrides: HashMap::from([(two, 5)]),
        });
        let first = admission.admit(one).unwrap();
        assert_eq!(admission.admit("::ffff:10.0.0.1".parse().unwrap()).unwrap_err(), Refused::PerIp(1));
        let _second = admission.admit(two).unwrap();
        let _third = admission.admit(two).unwrap();
        assert_eq!(admission.admit(two).unwrap_err(), Refused::Total(3));
        drop(first);
        let _fourth = admission.admit(one).unwrap();
        assert_eq!(admission.connections(), 3);
        admission.set_limits(AdmissionLimits { connections_max: 4, ..AdmissionLimits::default() });
        let _fifth = admission.admit(one).unwrap();
        assert_eq!(admission.admit(two).unwrap_err(), Refused::Total(4));
    }
}
