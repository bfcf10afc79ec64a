//! What no two VMs on this host share: MAC addresses and vsock context ids.
//!
//! A VM's record is the lease: what it names is taken as long as the record is there, and free in
//! the commit that removes it. This is the index of all records, so that nothing is given out
//! twice.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use roost_model::{MacAddress, VmId, VmRecord, VmSpec};

use crate::context::new_seed;
use crate::error::EngineError;

/// First context id of a guest: 0 to 2 mean the hypervisor, the machine itself and its host
/// (`linux/vm_sockets.h`).
const FIRST_CID: u32 = 3;
/// Last context id of a guest: the one above it is `VMADDR_CID_ANY`.
const LAST_CID: u32 = u32::MAX - 1;

#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    macs: HashMap<MacAddress, VmId>,
    cids: HashMap<u32, VmId>,
    /// The context id that was given out last: an id is not given out again soon after it was
    /// free, when somebody may still hold it for the other VM's.
    last_cid: u32,
}

impl Leases {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what `record` has.
    pub(crate) fn restore(&self, record: &VmRecord) {
        let mut taken = self.taken();
        for mac in &record.macs {
            taken.macs.insert(*mac, record.id);
        }
        if let Some(cid) = record.vsock_cid {
            taken.cids.insert(cid, record.id);
            taken.last_cid = taken.last_cid.max(cid);
        }
    }

    /// Gives `record` what its spec needs. All of it, or nothing.
    ///
    /// # Errors
    /// An address that the spec asks for is another VM's.
    pub(crate) fn take(&self, record: &mut VmRecord) -> Result<(), EngineError> {
        let mut taken = self.taken();
        let macs = taken.macs_for(&record.spec)?;
        for mac in &macs {
            taken.macs.insert(*mac, record.id);
        }
        record.macs = macs;
        record.vsock_cid = record.spec.vsock.then(|| taken.next_cid());
        if let Some(cid) = record.vsock_cid {
            taken.cids.insert(cid, record.id);
        }
        Ok(())
    }

    /// Takes back what `record` has.
    pub(crate) fn free(&self, record: &VmRecord) {
        let mut taken = self.taken();
        taken.macs.retain(|_, vm| *vm != record.id);
        taken.cids.retain(|_, vm| *vm != record.id);
    }
}

impl Taken {
    fn macs_for(&self, spec: &VmSpec) -> Result<Vec<MacAddress>, EngineError> {
        let mut macs: Vec<MacAddress> = Vec::new();
        for network in &spec.networks {
            let mac = match network.mac {
                Some(mac) => {
                    if let Some(by) = self.macs.get(&mac) {
                        return Err(EngineError::MacTaken { mac, by: Some(*by) });
                    }
                    if macs.contains(&mac) {
                        return Err(EngineError::MacTaken { mac, by: None });
                    }
                    mac
                }
                None => loop {
                    let [bytes @ .., _, _] = new_seed().to_le_bytes();
                    let mac = MacAddress::local(bytes);
                    let asked_for = spec.networks.iter().any(|n| n.mac == Some(mac));
                    if !self.macs.contains_key(&mac) && !macs.contains(&mac) && !asked_for {
                        break mac;
                    }
                },
            };
            macs.push(mac);
        }
        Ok(macs)
    }

    fn next_cid(&mut self) -> u32 {
        loop {
            self.last_cid = match self.last_cid {
                last @ FIRST_CID..LAST_CID => last + 1,
                _ => FIRST_CID,
            };
            if !self.cids.contains_key(&self.last_cid) {
                return self.last_cid;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use roost_model::{DesiredState, Digest, ImageRef, VmState};

    use super::*;

    fn record(n: u128, networks: &str) -> VmRecord {
        let kernel = Digest::new([0; 32]);
        let spec = VmSpec {
            networks: serde_json::from_str(networks).unwrap(),
            vsock: true,
            ..VmSpec::new("a".parse().unwrap(), ImageRef::Digest(kernel))
        };
        VmRecord {
            id: VmId::from_uuid(uuid::Uuid::from_u128(n)),
            spec,
            kernel,
            initrd: None,
            disk_images: Vec::new(),
            disks_made: false,
            macs: Vec::new(),
            vsock_cid: None,
            desired: DesiredState::Stopped,
            state: VmState::Stopped,
            incarnation: 0,
            revision: 1,
            worker: None,
            running_since_ms: None,
            recovery_attempts: 0,
            created_at_ms: 0,
            updated_at_ms: 0,
        }
    }

    #[test]
    fn no_two_vms_have_the_same_address_or_context_id() {
        let leases = Leases::default();
        let mut macs = HashSet::new();
        let mut cids = HashSet::new();
        for n in 0..100 {
            let mut vm = record(n, r#"[{"name":"a"},{"name":"b"}]"#);
            leases.take(&mut vm).unwrap();
            assert!(vm.macs.iter().all(|mac| macs.insert(*mac)));
            assert!(cids.insert(vm.vsock_cid.unwrap()));
        }
        assert!(cids.iter().all(|cid| *cid >= FIRST_CID));
    }

    #[test]
    fn an_address_of_another_vm_is_refused_and_nothing_is_taken() {
        let asked = r#"[{"name":"a"},{"name":"b","mac":"02:00:00:00:00:01"}]"#;
        let leases = Leases::default();
        let mut first = record(1, asked);
        leases.take(&mut first).unwrap();
        let mut second = record(2, asked);
        let refused = leases.take(&mut second).unwrap_err();
        assert!(matches!(refused, EngineError::MacTaken { by: Some(by), .. } if by == first.id));
        assert!(!leases.taken().macs.values().any(|vm| *vm == second.id));

        leases.free(&first);
        leases.take(&mut second).unwrap();
    }

    #[test]
    fn one_vm_can_not_ask_for_an_address_twice() {
        let mut vm = record(
            1,
            r#"[{"name":"a","mac":"02:00:00:00:00:01"},{"name":"b","mac":"02:00:00:00:00:01"}]"#,
        );
        assert!(Leases::default().take(&mut vm).is_err());
    }

    #[test]
    fn what_records_hold_at_the_start_is_not_given_out_again() {
        let leases = Leases::default();
        let mut first = record(1, "[]");
        leases.take(&mut first).unwrap();

        let after_restart = Leases::default();
        after_restart.restore(&first);
        let mut second = record(2, "[]");
        after_restart.take(&mut second).unwrap();
        assert_ne!(first.vsock_cid, second.vsock_cid);
    }

    #[test]
    fn context_ids_start_again_after_the_last() {
        let mut taken = Taken {
            last_cid: LAST_CID - 1,
            ..Taken::default()
        };
        assert_eq!(taken.next_cid(), LAST_CID);
        assert_eq!(taken.next_cid(), FIRST_CID);
    }
}
