;; Built against the frozen wit/ beside it: cleanup-policy, and everything of the optional host.
(module
  ;; Every function of the optional host. Only log is called.
  (import "roost:policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "roost:policy/host@0.1.0" "get-vm" (func (param i32 i32 i32)))
  (import "roost:policy/host@0.1.0" "list-vms"
    (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "roost:policy/host@0.1.0" "history" (func (param i32 i32 i32 i32)))
  (import "roost:policy/host@0.1.0" "kv-get" (func (param i32 i32 i32)))
  (import "roost:policy/host@0.1.0" "kv-set" (func (param i32 i32 i32 i32 i32)))
  (import "roost:policy/host@0.1.0" "kv-compare-and-swap"
    (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "roost:policy/host@0.1.0" "kv-delete" (func (param i32 i32) (result i32)))
  (import "roost:policy/host@0.1.0" "kv-list" (func (param i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    ;; A bump allocator: an instance serves one call.
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (global $next (mut i32) (i32.const 4096))
  ;; A description: name, version, summary, and no attributes.
  (data (i32.const 64) "frozen")
  (data (i32.const 72) "0.1.0")
  (data (i32.const 128) "\40\00\00\00\06\00\00\00\48\00\00\00\05\00\00\00\40\00\00\00\06\00\00\00")
  (func (export "roost:policy/plugin@0.1.0#describe") (result i32) (i32.const 128))
  ;; Accepts all settings: address 192 holds zeros.
  (func (export "roost:policy/plugin@0.1.0#validate-settings") (param i32 i32) (result i32)
    (i32.const 192))
  ;; retry-after(700), after a line in the log
  (data (i32.const 320) "\00\00\00\00\00\00\00\00\bc\02\00\00\00\00\00\00")
  (func (export "roost:policy/cleanup@0.1.0#decide")
    (param i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)
    (call $log (i32.const 2) (i32.const 64) (i32.const 6))
    (i32.const 320))
)
