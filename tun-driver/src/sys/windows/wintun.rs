//! `wintun.dll` (wintun.net), found beside the program or in the system's own folder when the first device is made.

use std::{
    ffi::c_void,
    io,
    sync::{Arc, OnceLock},
};

use windows_sys::{
    Win32::{
        Foundation::{ERROR_BUFFER_OVERFLOW, ERROR_NO_MORE_ITEMS, HANDLE, WAIT_OBJECT_0},
        NetworkManagement::Ndis::NET_LUID_LH,
        System::{
            LibraryLoader::{
                GetProcAddress, LOAD_LIBRARY_SEARCH_APPLICATION_DIR, LOAD_LIBRARY_SEARCH_SYSTEM32, LoadLibraryExW,
            },
            Threading::{INFINITE, WaitForMultipleObjects},
        },
    },
    core::{GUID, PCSTR},
};

/// The ring of a session: a power of two from 128 KiB to 64 MiB.
const RING: u32 = 4 << 20;

type AdapterHandle = *mut c_void;
type SessionHandle = *mut c_void;

/// The functions that are used, by the names and types of `wintun.h`.
#[derive(Clone, Copy, Debug)]
struct Library {
    create_adapter: unsafe extern "system" fn(*const u16, *const u16, *const GUID) -> AdapterHandle,
    close_adapter: unsafe extern "system" fn(AdapterHandle),
    get_adapter_luid: unsafe extern "system" fn(AdapterHandle, *mut NET_LUID_LH),
    start_session: unsafe extern "system" fn(AdapterHandle, u32) -> SessionHandle,
    end_session: unsafe extern "system" fn(SessionHandle),
    get_read_wait_event: unsafe extern "system" fn(SessionHandle) -> HANDLE,
    receive_packet: unsafe extern "system" fn(SessionHandle, *mut u32) -> *mut u8,
    release_receive_packet: unsafe extern "system" fn(SessionHandle, *const u8),
    allocate_send_packet: unsafe extern "system" fn(SessionHandle, u32) -> *mut u8,
    send_packet: unsafe extern "system" fn(SessionHandle, *const u8),
}

/// Loads the library, once for the process.
fn library() -> io::Result<&'static Library> {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let name: Vec<u16> = "wintun.dll".encode_utf16().chain([0]).collect();
    // Never from the working folder or the path, where anybody might have put another one.
    let places = LOAD_LIBRARY_SEARCH_APPLICATION_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32;
    // SAFETY: the name ends with zero; the file that is loaded is the administrator's. It is never unloaded.
    let module = unsafe { LoadLibraryExW(name.as_ptr(), std::ptr::null_mut(), places) };
    if module.is_null() {
        return Err(io::Error::last_os_error());
    }
    let find = |name: PCSTR| {
        // SAFETY: the module is loaded and stays so; the name ends with zero.
        unsafe { GetProcAddress(module, name) }.ok_or_else(io::Error::last_os_error)
    };
    macro_rules! function {
        ($name:literal) => {{
            let function = find(concat!($name, "\0").as_ptr())?;
            #[expect(clippy::missing_transmute_annotations, reason = "the field says which type it is")]
            // SAFETY: the function of this name has the type that `wintun.h` gives it, which the field repeats.
            unsafe {
                std::mem::transmute(function)
            }
        }};
    }
    let loaded = Library {
        create_adapter: function!("WintunCreateAdapter"),
        close_adapter: function!("WintunCloseAdapter"),
        get_adapter_luid: function!("WintunGetAdapterLUID"),
        start_session: function!("WintunStartSession"),
        end_session: function!("WintunEndSession"),
        get_read_wait_event: function!("WintunGetReadWaitEvent"),
        receive_packet: function!("WintunReceivePacket"),
        release_receive_packet: function!("WintunReleaseReceivePacket"),
        allocate_send_packet: function!("WintunAllocateSendPacket"),
        send_packet: function!("WintunSendPacket"),
    };
    Ok(LIBRARY.get_or_init(|| loaded))
}

/// An adapter, gone when it is closed or its process ends.
#[derive(Debug)]
struct Adapter {
    library: &'static Library,
    handle: AdapterHandle,
}

// SAFETY: wintun's functions may be called from any thread.
unsafe impl Send for Adapter {}
// SAFETY: as above.
unsafe impl Sync for Adapter {}

impl Drop for Adapter {
    fn drop(&mut self) {
        // SAFETY: the adapter is open, its session has ended (see the order of fields in `Session`), and nothing uses it
        // afterwards.
        unsafe { (self.library.close_adapter)(self.handle) };
    }
}

/// An open adapter, with the packets that go through it.
#[derive(Debug)]
pub(crate) struct Session {
    handle: SessionHandle,
    /// Closed after the session has ended.
    adapter: Adapter,
}

// SAFETY: wintun's functions on sessions may be called from any thread, sending and receiving at once too.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the session is open, and nothing uses it afterwards.
        unsafe { (self.adapter.library.end_session)(self.handle) };
    }
}

impl Session {
    /// Makes an adapter of this name. One that has the same number already is replaced.
    pub(crate) fn open(name: &str, number: GUID) -> io::Result<Arc<Self>> {
        let library = library()?;
        let wide = |text: &str| -> Vec<u16> { text.encode_utf16().chain([0]).collect() };
        let (name, kind) = (wide(name), wide("Postern"));
        // SAFETY: both names end with zero and outlive the call, and so does the number.
        let handle = unsafe { (library.create_adapter)(name.as_ptr(), kind.as_ptr(), &raw const number) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        let adapter = Adapter { library, handle };
        // SAFETY: the adapter is open; the size of the ring is one that is allowed.
        let handle = unsafe { (library.start_session)(adapter.handle, RING) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Arc::new(Self { handle, adapter }))
    }

    /// The number by which the system knows the adapter.
    pub(crate) fn luid(&self) -> NET_LUID_LH {
        let mut luid = NET_LUID_LH { Value: 0 };
        // SAFETY: the adapter is open; its number is written into `luid`.
        unsafe { (self.adapter.library.get_adapter_luid)(self.adapter.handle, &raw mut luid) };
        luid
    }

    /// The next packet from the system's programs. Waits for it; `None` when `stop` is signalled.
    pub(crate) fn receive(&self, stop: HANDLE) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut length = 0;
            // SAFETY: the session is open; the length of the packet is written into `length`.
            let packet = unsafe { (self.adapter.library.receive_packet)(self.handle, &raw mut length) };
            if !packet.is_null() {
                // SAFETY: wintun says that so many bytes are there, until the packet is released.
                let bytes = unsafe { std::slice::from_raw_parts(packet, length as usize) }.to_vec();
                // SAFETY: a packet that was received and not yet released; its bytes were copied.
                unsafe { (self.adapter.library.release_receive_packet)(self.handle, packet) };
                return Ok(Some(bytes));
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(ERROR_NO_MORE_ITEMS.cast_signed()) {
                return Err(error);
            }
            // SAFETY: the session is open; the event is the session's own.
            let more = unsafe { (self.adapter.library.get_read_wait_event)(self.handle) };
            let events = [stop, more];
            // SAFETY: two open handles, one behind the other.
            let woken = unsafe { WaitForMultipleObjects(2, events.as_ptr(), 0, INFINITE) };
            if woken == WAIT_OBJECT_0 {
                return Ok(None);
            }
            if woken != WAIT_OBJECT_0 + 1 {
                return Err(io::Error::last_os_error());
            }
        }
    }

    /// Gives a packet to the system's programs. False when there is no room now.
    pub(crate) fn try_send(&self, packet: &[u8]) -> io::Result<bool> {
        let length = u32::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the session is open.
        let room = unsafe { (self.adapter.library.allocate_send_packet)(self.handle, length) };
        if room.is_null() {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() == Some(ERROR_BUFFER_OVERFLOW.cast_signed()) {
                true => Ok(false),
                false => Err(error),
            };
        }
        // SAFETY: wintun gave room for `length` bytes, the length of `packet`; the packet is sent once.
        unsafe {
            std::ptr::copy_nonoverlapping(packet.as_ptr(), room, packet.len());
            (self.adapter.library.send_packet)(self.handle, room);
        }
        Ok(true)
    }
}
