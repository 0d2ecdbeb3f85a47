//! c_api
