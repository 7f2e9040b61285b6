//! The Name Resolution Policy Table in the registry: our rules in the local table, and in that of group policies where
//! there is one, because Windows then reads no other.

use std::{io, ptr};

use windows_sys::Win32::{
    Foundation::{ERROR_FILE_NOT_FOUND, ERROR_NO_MORE_ITEMS, ERROR_SUCCESS},
    System::{
        GroupPolicy::RefreshPolicyEx,
        Registry::{
            HKEY, HKEY_LOCAL_MACHINE, KEY_READ, KEY_WRITE, REG_DWORD, REG_MULTI_SZ, REG_SZ, REG_VALUE_TYPE,
            RegCloseKey, RegCreateKeyExW, RegDeleteTreeW, RegEnumKeyExW, RegOpenKeyExW, RegSetValueExW,
        },
    },
};

use crate::dns::{
    DnsBackend, LinkNames,
    nrpt::{OWN_KEYS, Rule, rules},
};

const LOCAL: &str = r"SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig";
const POLICY: &str = r"SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig";
/// "Ask these servers" of the table's second version.
const GENERIC_SERVERS: u32 = 8;
const VERSION: u32 = 2;
/// Names of keys have 255 characters at most.
const MAX_NAME: usize = 256;

#[link(name = "dnsapi", kind = "raw-dylib")]
unsafe extern "system" {
    fn DnsFlushResolverCache() -> i32;
}

/// The table of this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declarations(());

impl Declarations {
    pub(crate) const BACKEND: DnsBackend = DnsBackend::Nrpt;

    /// Makes our rules those of `links`, and leaves all others alone.
    #[expect(clippy::unused_self, reason = "other platforms have a folder")]
    pub(crate) fn declare(&self, links: &[LinkNames]) -> io::Result<()> {
        let wanted = rules(links);
        let mut changed = false;
        let local = Key::create(HKEY_LOCAL_MACHINE, LOCAL)?;
        changed |= local.settle(&wanted)?;
        // Never made by us: an empty one would make Windows ignore the local table.
        if let Some(policy) = Key::open(HKEY_LOCAL_MACHINE, POLICY)? {
            changed |= policy.settle(&wanted)?;
            // SAFETY: takes two numbers (this machine, not forced) and no pointer.
            let _ = unsafe { RefreshPolicyEx(1, 0) };
        }
        if changed {
            // SAFETY: takes nothing. Answers of before are no longer true.
            let _ = unsafe { DnsFlushResolverCache() };
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "other platforms have a folder")]
    pub(crate) fn describe(&self) -> Vec<String> {
        let keys = Key::open(HKEY_LOCAL_MACHINE, LOCAL).ok().flatten().and_then(|key| key.own_keys().ok());
        keys.unwrap_or_default().into_iter().map(|key| format!(r"HKLM\{LOCAL}\{key} is there")).collect()
    }
}

/// An open key, closed with its value.
struct Key(HKEY);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nothing uses it afterwards.
        unsafe { RegCloseKey(self.0) };
    }
}

impl Key {
    fn create(parent: HKEY, path: &str) -> io::Result<Self> {
        let (path, mut key) = (wide(path), ptr::null_mut());
        // SAFETY: `path` ends with zero; a handle is written into `key`; the other pointers may be null.
        check(unsafe {
            RegCreateKeyExW(
                parent,
                path.as_ptr(),
                0,
                ptr::null(),
                0,
                KEY_READ | KEY_WRITE,
                ptr::null(),
                &raw mut key,
                ptr::null_mut(),
            )
        })?;
        Ok(Self(key))
    }

    /// `None` when there is no such key.
    fn open(parent: HKEY, path: &str) -> io::Result<Option<Self>> {
        let (path, mut key) = (wide(path), ptr::null_mut());
        // SAFETY: `path` ends with zero; a handle is written into `key`.
        match unsafe { RegOpenKeyExW(parent, path.as_ptr(), 0, KEY_READ | KEY_WRITE, &raw mut key) } {
            ERROR_FILE_NOT_FOUND => Ok(None),
            code => check(code).map(|()| Some(Self(key))),
        }
    }

    /// Writes the wanted rules and deletes our others. Whether the set of our keys changed.
    fn settle(&self, wanted: &[Rule]) -> io::Result<bool> {
        let present = self.own_keys()?;
        for key in present.iter().filter(|key| !wanted.iter().any(|rule| rule.key.eq_ignore_ascii_case(key))) {
            let name = wide(key);
            // SAFETY: the handle is open and `name` ends with zero.
            check(unsafe { RegDeleteTreeW(self.0, name.as_ptr()) })?;
        }
        for rule in wanted {
            let key = Self::create(self.0, &rule.key)?;
            key.set_number("Version", VERSION)?;
            key.set("Name", REG_MULTI_SZ, &bytes(&(rule.names.join("\0") + "\0\0")))?;
            key.set("GenericDNSServers", REG_SZ, &bytes(&(rule.servers.clone() + "\0")))?;
            key.set_number("ConfigOptions", GENERIC_SERVERS)?;
            key.set("Comment", REG_SZ, &bytes("postern-netd\0"))?;
        }
        Ok(present.len() != wanted.len())
    }

    /// The names of the keys that carry our mark.
    fn own_keys(&self) -> io::Result<Vec<String>> {
        let mut keys = Vec::new();
        for number in 0.. {
            let mut name = [0_u16; MAX_NAME];
            let mut length = u32::try_from(MAX_NAME).unwrap_or_default();
            // SAFETY: at most `length` characters are written into `name`, which has room for them; the rest is null.
            let code = unsafe {
                RegEnumKeyExW(
                    self.0,
                    number,
                    name.as_mut_ptr(),
                    &raw mut length,
                    ptr::null(),
                    ptr::null_mut(),
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            };
            if code == ERROR_NO_MORE_ITEMS {
                break;
            }
            check(code)?;
            let name = String::from_utf16_lossy(name.get(..length as usize).unwrap_or_default());
            if name.to_ascii_uppercase().starts_with(OWN_KEYS) {
                keys.push(name);
            }
        }
        Ok(keys)
    }

    fn set_number(&self, name: &str, number: u32) -> io::Result<()> {
        self.set(name, REG_DWORD, &number.to_le_bytes())
    }

    fn set(&self, name: &str, kind: REG_VALUE_TYPE, data: &[u8]) -> io::Result<()> {
        let name = wide(name);
        let length = u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the handle is open, `name` ends with zero, `data` is `length` bytes long.
        check(unsafe { RegSetValueExW(self.0, name.as_ptr(), 0, kind, data.as_ptr(), length) })
    }
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn check(code: u32) -> io::Result<()> {
    match code {
        ERROR_SUCCESS => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.cast_signed())),
    }
}
