//! How an account is called.

use postern_proto::api::AccountInfo;

/// Service accounts that were given no address have one that receives nothing and tells nothing.
const NO_ADDRESS: &str = "@service.invalid";

/// The e-mail address, or the name where the address was made up.
pub(crate) fn called(account: &AccountInfo) -> &str {
    if is_made_up(&account.email) && !account.name.is_empty() { &account.name } else { &account.email }
}

pub(crate) fn is_made_up(email: &str) -> bool {
    email.ends_with(NO_ADDRESS)
}
