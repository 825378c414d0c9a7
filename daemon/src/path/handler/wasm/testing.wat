;; A handler's component around the inside of a core module; see testing.rs.
(component
  (import "tidegate:handler/types@0.1.0" (instance $types
    (type $qos' (enum "at-most-once" "at-least-once" "exactly-once"))
    (export "qos" (type $qos (eq $qos')))
    (type $properties' (record
      (field "content-type" (option string))
      (field "response-topic" (option string))
      (field "correlation-data" (option (list u8)))
      (field "message-expiry" (option u32))
      (field "utf8-payload" bool)
      (field "user" (list (tuple string string)))))
    (export "properties" (type $properties (eq $properties')))
    (type $message' (record
      (field "broker" string)
      (field "subscription" string)
      (field "topic" string)
      (field "payload" (list u8))
      (field "qos" $qos)
      (field "retain" bool)
      (field "dup" bool)
      (field "received" u64)
      (field "attempt" u32)
      (field "captures" (list string))
      (field "properties" (option $properties))))
    (export "message" (type (eq $message')))
    (type $outgoing' (record
      (field "topic" string)
      (field "payload" (list u8))
      (field "qos" $qos)
      (field "retain" bool)
      (field "properties" (option $properties))))
    (export "outgoing" (type (eq $outgoing')))
    (type $retry-later' (record (field "reason" string) (field "after-ms" (option u64))))
    (export "retry-later" (type $retry-later (eq $retry-later')))
    (type $failure' (variant (case "reject" string) (case "retry" $retry-later)))
    (export "failure" (type (eq $failure')))))
  (alias export $types "message" (type $message))
  (alias export $types "outgoing" (type $outgoing))
  (alias export $types "failure" (type $failure))

  (import "tidegate:handler/publisher@0.1.0" (instance $publisher
    (export "outgoing" (type $o (eq $outgoing)))
    (type $error' (variant
      (case "denied" string)
      (case "invalid-topic" string)
      (case "too-large")
      (case "quota")
      (case "unknown-broker" string)
      (case "outbox-full")
      (case "other" string)))
    (export "publish-error" (type $error (eq $error')))
    (export "publish" (func (param "message" $o) (param "broker" (option string)) (result (result (error $error)))))))
  (import "tidegate:handler/system@0.1.0" (instance $system
    (type $readings' (record
      (field "model" string)
      (field "serial-number" string)
      (field "os-version" string)
      (field "cpu-load" u8)
      (field "used-memory" u64)
      (field "free-memory" u64)
      (field "uptime" u64)))
    (export "readings" (type $readings (eq $readings')))
    (export "read" (func (result (result $readings (error string)))))))
  (import "tidegate:handler/random@0.1.0" (instance $random
    (export "bytes" (func (param "len" u32) (result (list u8))))))
  (import "wasi:cli/exit@0.2.0" (instance $exit
    (export "exit" (func (param "status" (result))))))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (export "pollable" (type $p (eq $pollable)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))

  ;; The allocator begins anew after each call.
  (core module $libc
    (memory (export "memory") 2)
    (global $free (export "free") (mut i32) (i32.const 0x2000))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      (global.set $free (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (core func $publish (canon lower (func $publisher "publish")
    (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $random (canon lower (func $random "bytes")
    (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $read (canon lower (func $system "read")
    (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $exit (canon lower (func $exit "exit")))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))

  (core module $guest
    (import "libc" "memory" (memory 2))
    (import "libc" "free" (global $free (mut i32)))
    ;; A pointer to the arguments, and one to where the result goes.
    (import "host" "publish" (func $publish (param i32 i32)))
    ;; A length, and a pointer to where the list goes.
    (import "host" "random" (func $random (param i32 i32)))
    ;; A pointer to where the result goes.
    (import "host" "read" (func $read (param i32)))
    ;; 0 for ok, 1 for an error.
    (import "host" "exit" (func $exit (param i32)))
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "host" "block" (func $block (param i32)))
    (func $sleep (param $nanoseconds i64)
      (call $block (call $subscribe (local.get $nanoseconds))))
    $BODY$
    (func (export "post") (param i32) (global.set $free (i32.const 0x2000)))
    (export "init" (func $init))
    $EXPORTS$)
  (core instance $guest (instantiate $guest
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "publish" (func $publish))
      (export "random" (func $random))
      (export "read" (func $read))
      (export "exit" (func $exit))
      (export "subscribe" (func $subscribe))
      (export "block" (func $block))))))

  (func $init (result (result (error string)))
    (canon lift (core func $guest "init") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (instance $lifecycle (export "init" (func $init)))
  (export "tidegate:handler/lifecycle@0.1.0" (instance $lifecycle))

  $CALLS$)
