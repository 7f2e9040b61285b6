//! A service of Windows: the system starts the program, asks it to stop, and wants to be told where it stands.

use std::{
    ffi::c_void,
    io, ptr,
    sync::{Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;
use windows_sys::Win32::{
    Foundation::{ERROR_FAILED_SERVICE_CONTROLLER_CONNECT, NO_ERROR},
    System::Services::{
        RegisterServiceCtrlHandlerExW, SERVICE_ACCEPT_SHUTDOWN, SERVICE_ACCEPT_STOP, SERVICE_CONTROL_SHUTDOWN,
        SERVICE_CONTROL_STOP, SERVICE_RUNNING, SERVICE_STATUS, SERVICE_STATUS_CURRENT_STATE, SERVICE_STATUS_HANDLE,
        SERVICE_STOP_PENDING, SERVICE_STOPPED, SERVICE_TABLE_ENTRYW, SERVICE_WIN32_OWN_PROCESS, SetServiceStatus,
        StartServiceCtrlDispatcherW,
    },
};

type Work = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// What the system's thread is to do, and what became of it: it comes without anything to know it by.
static WORK: Mutex<Option<Work>> = Mutex::new(None);
static RESULT: Mutex<Option<anyhow::Result<()>>> = Mutex::new(None);
static STOP: Mutex<Option<CancellationToken>> = Mutex::new(None);

/// `ERROR_EXCEPTION_IN_SERVICE`.
const FAILED: u32 = 1064;

/// Does `work` as a service when the system started this program as one, and here otherwise.
///
/// # Errors
/// Those of `work`.
pub(crate) fn under_service_manager(work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    *lock(&WORK) = Some(Box::new(work));
    let mut name = service_name();
    let table = [
        SERVICE_TABLE_ENTRYW { lpServiceName: name.as_mut_ptr(), lpServiceProc: Some(serve) },
        SERVICE_TABLE_ENTRYW { lpServiceName: ptr::null_mut(), lpServiceProc: None },
    ];
    // SAFETY: the table ends with an empty entry; table and name outlive the call, which returns when the service ended.
    let served = unsafe { StartServiceCtrlDispatcherW(table.as_ptr()) } != 0;
    if served {
        return lock(&RESULT).take().unwrap_or(Ok(()));
    }
    let error = io::Error::last_os_error();
    match lock(&WORK).take() {
        Some(work) if error.raw_os_error() == Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT.cast_signed()) => work(),
        _ => Err(error.into()),
    }
}

/// Resolves when the system stops the service; never when this is none.
pub(crate) async fn service_stopped() {
    stop_token().cancelled().await;
}

fn stop_token() -> CancellationToken {
    lock(&STOP).get_or_insert_default().clone()
}

fn lock<T>(mutex: &'static Mutex<T>) -> std::sync::MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn service_name() -> Vec<u16> {
    "postern-netd".encode_utf16().chain([0]).collect()
}

/// On a thread of the system's.
unsafe extern "system" fn serve(_: u32, _: *mut *mut u16) {
    let name = service_name();
    // SAFETY: the name ends with zero; the handler takes no context.
    let status = unsafe { RegisterServiceCtrlHandlerExW(name.as_ptr(), Some(handle_control), ptr::null()) };
    if status.is_null() {
        *lock(&RESULT) = Some(Err(io::Error::last_os_error().into()));
        return;
    }
    tell(status, SERVICE_RUNNING, NO_ERROR);
    let work = lock(&WORK).take();
    let result = work.map_or(Ok(()), |work| work());
    let code = if result.is_ok() { NO_ERROR } else { FAILED };
    *lock(&RESULT) = Some(result);
    tell(status, SERVICE_STOPPED, code);
}

unsafe extern "system" fn handle_control(control: u32, _: u32, _: *mut c_void, _: *mut c_void) -> u32 {
    if matches!(control, SERVICE_CONTROL_STOP | SERVICE_CONTROL_SHUTDOWN) {
        stop_token().cancel();
    }
    NO_ERROR
}

fn tell(service: SERVICE_STATUS_HANDLE, state: SERVICE_STATUS_CURRENT_STATE, code: u32) {
    let ends = matches!(state, SERVICE_STOPPED | SERVICE_STOP_PENDING);
    let status = SERVICE_STATUS {
        dwServiceType: SERVICE_WIN32_OWN_PROCESS,
        dwCurrentState: state,
        dwControlsAccepted: if ends { 0 } else { SERVICE_ACCEPT_STOP | SERVICE_ACCEPT_SHUTDOWN },
        dwWin32ExitCode: code,
        ..SERVICE_STATUS::default()
    };
    // SAFETY: the service is registered; a whole status that outlives the call.
    unsafe { SetServiceStatus(service, &raw const status) };
}
