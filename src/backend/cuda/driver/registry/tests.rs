//! The tables, and the structs that cross the border.

use super::*;

/// What nvcc's objects have registered when this program was loaded, without a driver: each kernel, once.
#[test]
fn tables_have_room_for_twice_the_kernels() {
    let kernels = KERNELS.iter().filter(|k| !k.stub.load(Ordering::Relaxed).is_null()).count();
    let images = IMAGES.iter().filter(|i| !i.code.load(Ordering::Relaxed).is_null()).count();
    println!("{kernels} kernels, {images} images");
    assert_eq!(complete(), Ok(()));
    assert!(2 * kernels <= MOST_KERNELS && 2 * images <= MOST_IMAGES, "{kernels} kernels, {images} images");
    // The emulated device's come with their first launch.
    assert!(kernels > 100 && images > 10 || kernels == 0, "{kernels} kernels, {images} images");
}

#[test]
fn a_kernel_that_nobody_registered_is_refused() {
    let stub = std::ptr::from_ref(&MAGIC).cast();
    assert_eq!(kernel(stub).err(), Some(ffi::ERROR_INVALID_FUNCTION));
    // SAFETY: the configuration is read, the arguments are not.
    unsafe {
        let size = Size { x: 1, y: 1, z: 1 };
        let (stream, attributes) = (null_mut(), null_mut());
        let config = LaunchConfig { grid: size, block: size, shared_bytes: 0, stream, attributes, n_attributes: 0 };
        assert_eq!(launch(&config, stub, null_mut()), ffi::ERROR_INVALID_FUNCTION);
        assert_eq!(launch(std::ptr::null(), stub, null_mut()), ffi::ERROR_INVALID_VALUE);
    }
}

/// The runtime's structs, as its header has them.
#[test]
fn structs_are_as_large_as_the_runtime_s() {
    assert_eq!((size_of::<LaunchConfig>(), align_of::<LaunchConfig>()), (56, 8));
    assert_eq!(std::mem::offset_of!(LaunchConfig, shared_bytes), 24);
    assert_eq!((size_of::<CUlaunchAttribute>(), size_of::<Attributes>()), (72, 48));
    assert_eq!(std::mem::offset_of!(Attributes, numbers), 24);
}
