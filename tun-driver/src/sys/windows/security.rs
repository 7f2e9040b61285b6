//! Who is at the other end of a pipe, and who may open one.

use std::{
    ffi::c_void,
    fmt,
    fs::File,
    io,
    os::windows::io::{AsHandle as _, AsRawHandle as _, BorrowedHandle},
    ptr,
};

use windows_sys::Win32::{
    Foundation::{ERROR_SUCCESS, HANDLE, LocalFree},
    Security::{
        Authorization::{
            ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
            SDDL_REVISION_1, SE_FILE_OBJECT, SE_KERNEL_OBJECT, SE_OBJECT_TYPE,
        },
        IsWellKnownSid, OWNER_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, RevertToSelf, SECURITY_ATTRIBUTES,
        TOKEN_QUERY, TOKEN_USER, WinBuiltinAdministratorsSid, WinLocalSystemSid,
    },
    System::{
        Pipes::{GetNamedPipeClientProcessId, ImpersonateNamedPipeClient},
        Threading::{GetCurrentThread, OpenThreadToken},
    },
};

use super::{Handle, user_of_token};

/// A user, by the text of the security identifier: `S-1-5-21-…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct User(String);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rights of a new pipe.
pub(crate) struct Rights {
    descriptor: PSECURITY_DESCRIPTOR,
}

impl Rights {
    /// For everybody who is logged on at this machine, and nobody over the network.
    pub(crate) fn for_interactive_users() -> io::Result<Self> {
        Self::parse("D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;GRGW;;;IU)")
    }

    /// For one user and the system.
    pub(crate) fn for_user(user: &User) -> io::Result<Self> {
        Self::parse(&format!("D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GRGW;;;{user})"))
    }

    fn parse(text: &str) -> io::Result<Self> {
        let text: Vec<u16> = text.encode_utf16().chain([0]).collect();
        let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
        // SAFETY: `text` ends with zero; the address of a descriptor is written into `descriptor`, freed by `Drop`.
        let made = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                ptr::null_mut(),
            )
        };
        if made == 0 { Err(io::Error::last_os_error()) } else { Ok(Self { descriptor }) }
    }

    /// Valid as long as these rights are.
    pub(crate) fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or_default(),
            lpSecurityDescriptor: self.descriptor,
            bInheritHandle: 0,
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        // SAFETY: the system made the descriptor for us, and nothing uses it afterwards.
        unsafe { LocalFree(self.descriptor) };
    }
}

/// The user whose token the other end of the pipe had, and its process. Only after a byte was read from there.
pub(crate) fn client_of(pipe: BorrowedHandle<'_>) -> io::Result<(User, u32)> {
    let pipe = pipe.as_raw_handle();
    let mut pid = 0;
    // SAFETY: the handle is open for as long as it is borrowed; a number is written into `pid`.
    if unsafe { GetNamedPipeClientProcessId(pipe, &raw mut pid) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle is open for as long as it is borrowed. This thread has the other's token until `Oneself` is
    // dropped, in this function.
    if unsafe { ImpersonateNamedPipeClient(pipe) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let oneself = Oneself;
    let mut token: HANDLE = ptr::null_mut();
    // SAFETY: the pseudo handle of this thread is always valid; the token is opened with the rights of this process (1).
    let opened = unsafe { OpenThreadToken(GetCurrentThread(), TOKEN_QUERY, 1, &raw mut token) };
    let error = io::Error::last_os_error();
    drop(oneself);
    if opened == 0 {
        return Err(error);
    }
    let token = Handle(token);
    let user = user_of_token(&token).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the buffer was filled with a `TOKEN_USER`, whose pointer leads into the same living buffer.
    let sid = unsafe { (*user.as_ptr().cast::<TOKEN_USER>()).User.Sid };
    // SAFETY: as above.
    Ok((User(unsafe { text_of(sid) }?), pid))
}

/// Gives the thread its own token back.
struct Oneself;

impl Drop for Oneself {
    fn drop(&mut self) {
        // SAFETY: takes nothing.
        if unsafe { RevertToSelf() } == 0 {
            // Going on with somebody else's token would be worse than to end.
            std::process::abort();
        }
    }
}

/// # Safety
/// `sid` points to a living security identifier.
unsafe fn text_of(sid: PSID) -> io::Result<String> {
    let mut text: *mut u16 = ptr::null_mut();
    // SAFETY: by the contract of this function; the address of a text is written into `text`, freed below.
    if unsafe { ConvertSidToStringSidW(sid, &raw mut text) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let copied = super::networks::text(text);
    // SAFETY: the system made the text for us, and it was copied.
    unsafe { LocalFree(text.cast::<c_void>()) };
    Ok(copied)
}

/// Whether the pipe belongs to the system or its administrators: an ordinary user who took the name first could not
/// make it theirs.
pub(crate) fn is_the_systems(pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    owner_is_privileged(pipe, SE_KERNEL_OBJECT)
}

/// Whether the file belongs to the system or its administrators; nobody else writes it then, unless they let him.
pub(crate) fn is_the_administrators(file: &File) -> io::Result<bool> {
    owner_is_privileged(file.as_handle(), SE_FILE_OBJECT)
}

fn owner_is_privileged(object: BorrowedHandle<'_>, kind: SE_OBJECT_TYPE) -> io::Result<bool> {
    let (mut owner, mut descriptor): (PSID, PSECURITY_DESCRIPTOR) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the handle is open for as long as it is borrowed; the address of a descriptor is written into `descriptor`,
    // freed below, and one within it into `owner`.
    let code = unsafe {
        GetSecurityInfo(
            object.as_raw_handle(),
            kind,
            OWNER_SECURITY_INFORMATION,
            &raw mut owner,
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            &raw mut descriptor,
        )
    };
    if code != ERROR_SUCCESS {
        return Err(io::Error::from_raw_os_error(code.cast_signed()));
    }
    // SAFETY: `owner` leads into the descriptor, which is alive.
    let known = |kind| !owner.is_null() && unsafe { IsWellKnownSid(owner, kind) } != 0;
    let known = known(WinLocalSystemSid) || known(WinBuiltinAdministratorsSid);
    // SAFETY: the system made the descriptor for us, and nothing uses it afterwards.
    unsafe { LocalFree(descriptor) };
    Ok(known)
}
