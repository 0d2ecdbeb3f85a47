//! The structs and numbers that cross the border.

use super::*;

#[test]
fn the_compiled_object_has_the_same_layout() {
    check().unwrap();
    // A field that only one side has shows in the sizes of the struct's fields as well.
    assert!(reported().len() > 300, "{}", reported().len());
}

#[test]
fn a_difference_is_named_with_both_numbers() {
    let mut there = reported();
    let offset = there.iter_mut().find(|(name, _)| name == "KgStage.n_seg").unwrap();
    offset.1 += 4;
    let (is, was) = (offset.1, offset.1 - 4);
    let error = compare(ALL, &there).unwrap_err().to_string();
    assert!(error.contains(&format!("KgStage.n_seg is {is} there, {was} here")), "{error}");
    there.retain(|(name, _)| name != "KgStage.n_seg");
    let error = compare(ALL, &there).unwrap_err().to_string();
    assert!(error.contains(&format!("KgStage.n_seg is unknown there, {was} here")), "{error}");
    let error = compare(&ALL[..3], &reported()).unwrap_err().to_string();
    assert!(error.contains("KG_PAGE is 64 there, unknown here"), "{error}");
}
