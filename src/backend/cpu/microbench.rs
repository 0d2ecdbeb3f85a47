#[test]
fn microbench() {
    use super::simd::*; use super::linear::*; use super::pack::*; use super::arena::*; use crate::gguf::TensorType; use super::vector;
    let (rows, cols) = (4096usize, 1536usize);
    for ty in TensorType::ALL {
        let arena = Arena::new(Matrix::bytes(ty, rows, cols)).unwrap();
        let src = vec![0x11u8; 16*ty.row_bytes(cols)];
        let t = std::time::Instant::now();
        for p in 0..rows/16 { let out = unsafe { std::slice::from_raw_parts_mut(arena.base().add(p*panel_bytes(ty,cols)), panel_bytes(ty,cols)) }; pack_panel(ty, cols, &src, out); }
        let pack = t.elapsed().as_secs_f64();
        let m = unsafe { Matrix::new(ty, rows, cols, arena.base()) };
        let mut line = format!("{:5} pack {:6.2} GB/s", ty.name(), (rows*ty.row_bytes(cols)) as f64/pack/1e9);
        for isa in Isa::available() { if isa==Isa::Portable {continue}
        for n in [1usize, 4, 64] {
            let x = vec![0.5f32; n*cols];
            let mut q = vec![XBlock::ZERO; n*cols/32];
            unsafe { vector::quantize(isa, x.as_ptr(), q.as_mut_ptr(), n*cols) };
            let mut y = vec![0f32; n*rows];
            let quant: &[XBlock] = if m.is_quantized() { &q } else { &[] };
            let input = Input { n, float: &x, quant };
            let reps = if n==64 {3} else {20};
            let mut best = f64::MAX;
            for _ in 0..reps { let t = std::time::Instant::now(); unsafe { m.mul(isa, 0, m.n_panels(), &input, y.as_mut_ptr(), rows) }; best = best.min(t.elapsed().as_secs_f64()); }
            line += &format!(" | {isa:?} n={n}: {:6.1} GB/s {:6.1} GMAC/s", Matrix::bytes(ty,rows,cols) as f64/best/1e9, (rows*cols*n) as f64/best/1e9);
        } }
        println!("{line}");
    }
}
