//! The filters, tests and functions of Jinja, given to each template anew.
//!
//! The template engine's own default environment keeps them in statics for the rest of the process, which a library
//! that is unloaded again leaves behind. What may give much more than it gets, or panics, is not among them: see
//! [`bounds`](super::bounds) and [`order`](super::order); `batch`, `debug`, `format`, `indent`, `pprint`, `round` and
//! `slice` are things that chat templates do without.

use minijinja::{Environment, filters, functions, tests};

/// An environment with what templates expect of Jinja itself.
pub fn environment<'e>() -> Environment<'e> {
    let mut e = Environment::empty();
    e.add_filter("safe", filters::safe);
    e.add_filter("lower", filters::lower);
    e.add_filter("upper", filters::upper);
    e.add_filter("title", filters::title);
    e.add_filter("capitalize", filters::capitalize);
    e.add_filter("length", filters::length);
    e.add_filter("count", filters::length);
    e.add_filter("items", filters::items);
    e.add_filter("reverse", filters::reverse);
    e.add_filter("trim", filters::trim);
    e.add_filter("default", filters::default);
    e.add_filter("d", filters::default);
    e.add_filter("abs", filters::abs);
    e.add_filter("int", filters::int);
    e.add_filter("float", filters::float);
    e.add_filter("attr", filters::attr);
    e.add_filter("first", filters::first);
    e.add_filter("last", filters::last);
    e.add_filter("min", filters::min);
    e.add_filter("max", filters::max);
    e.add_filter("bool", filters::bool);
    e.add_filter("sum", filters::sum);
    e.add_filter("select", filters::select);
    e.add_filter("reject", filters::reject);
    e.add_filter("selectattr", filters::selectattr);
    e.add_filter("rejectattr", filters::rejectattr);
    e.add_filter("map", filters::map);
    e.add_filter("unique", filters::unique);
    e.add_filter("chain", filters::chain);
    e.add_filter("zip", filters::zip);

    e.add_test("undefined", tests::is_undefined);
    e.add_test("defined", tests::is_defined);
    e.add_test("none", tests::is_none);
    e.add_test("safe", tests::is_safe);
    e.add_test("escaped", tests::is_safe);
    e.add_test("boolean", tests::is_boolean);
    e.add_test("odd", tests::is_odd);
    e.add_test("even", tests::is_even);
    e.add_test("number", tests::is_number);
    e.add_test("integer", tests::is_integer);
    e.add_test("int", tests::is_integer);
    e.add_test("float", tests::is_float);
    e.add_test("string", tests::is_string);
    e.add_test("sequence", tests::is_sequence);
    e.add_test("mapping", tests::is_mapping);
    e.add_test("startingwith", tests::is_startingwith);
    e.add_test("endingwith", tests::is_endingwith);
    e.add_test("lower", tests::is_lower);
    e.add_test("upper", tests::is_upper);
    e.add_test("sameas", tests::is_sameas);
    e.add_test("eq", tests::is_eq);
    e.add_test("equalto", tests::is_eq);
    e.add_test("==", tests::is_eq);
    e.add_test("ne", tests::is_ne);
    e.add_test("!=", tests::is_ne);
    e.add_test("lt", tests::is_lt);
    e.add_test("lessthan", tests::is_lt);
    e.add_test("<", tests::is_lt);
    e.add_test("le", tests::is_le);
    e.add_test("<=", tests::is_le);
    e.add_test("gt", tests::is_gt);
    e.add_test("greaterthan", tests::is_gt);
    e.add_test(">", tests::is_gt);
    e.add_test("ge", tests::is_ge);
    e.add_test(">=", tests::is_ge);
    e.add_test("in", tests::is_in);
    e.add_test("true", tests::is_true);
    e.add_test("false", tests::is_false);
    e.add_test("filter", tests::is_filter);
    e.add_test("test", tests::is_test);

    e.add_function("dict", functions::dict);
    e.add_function("namespace", functions::namespace);
    e
}
