# The targets and what each runs with; read by run.sh and go.sh.
TARGETS='reader tokenize chat schema regex lark gbnf restore stream parser calls'

# The most bytes of an input. Long texts of one pattern are cases of their own, in tests/regression.rs.
max_len() {
    case $1 in
    reader) echo 16384 ;;
    restore) echo 2048 ;;
    chat) echo 3072 ;;
    schema) echo 1536 ;;
    lark | gbnf | tokenize | calls) echo 1024 ;;
    *) echo 512 ;;
    esac
}

# Each case holds itself to its limits of processor time and memory (src/support.rs); these are for what hangs.
options() {
    echo "-max_len=$(max_len "$1") -timeout=60 -rss_limit_mb=${RSS_MB:-2500} -malloc_limit_mb=1500 -reload=30 -print_final_stats=1"
    # The reader's own mutations make the lengths; elsewhere short inputs come first, which are fast.
    [ "$1" = reader ] || echo "-len_control=100"
    if [ -f "dict/$1" ]; then echo "-dict=dict/$1"; fi
}
