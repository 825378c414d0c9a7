;; A handler around the inside of a core module; see component.rs.
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
      (field "broker" string) (field "subscription" string) (field "topic" string) (field "payload" (list u8))
      (field "qos" $qos) (field "retain" bool) (field "dup" bool) (field "received" u64) (field "attempt" u32)
      (field "captures" (list string)) (field "properties" (option $properties))))
    (export "message" (type (eq $message')))
    (type $outgoing' (record
      (field "topic" string) (field "payload" (list u8)) (field "qos" $qos) (field "retain" bool)
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
      (case "denied" string) (case "invalid-topic" string) (case "too-large") (case "quota")
      (case "unknown-broker" string) (case "outbox-full") (case "other" string)))
    (export "publish-error" (type $error (eq $error')))
    (export "publish" (func (param "message" $o) (param "broker" (option string)) (result (result (error $error)))))))

  ;; What a call is given lies behind what the one before was given, and from the beginning again where the memory ends.
  (core module $libc
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 0x8000))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (if (i32.gt_u (i32.add (local.get $at) (local.get $size)) (i32.const 0x20000))
        (then (local.set $at (i32.const 0x8000))))
      (global.set $free (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (core func $publish (canon lower (func $publisher "publish")
    (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core module $guest
    (import "libc" "memory" (memory 2))
    ;; A pointer to the arguments, and one to where the result goes.
    (import "host" "publish" (func $publish (param i32 i32)))
    $BODY$
    (export "init" (func $init))
    (export "handle" (func $handle)))
  (core instance $guest (instantiate $guest
    (with "libc" (instance $libc))
    (with "host" (instance (export "publish" (func $publish))))))

  (func $init (result (result (error string)))
    (canon lift (core func $guest "init") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (instance $lifecycle (export "init" (func $init)))
  (export "tidegate:handler/lifecycle@0.1.0" (instance $lifecycle))
  (func $handle (param "message" $message) (result (result (error $failure)))
    (canon lift (core func $guest "handle") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (instance $on-message (export "handle" (func $handle)))
  (export "tidegate:handler/on-message@0.1.0" (instance $on-message))
  $BESIDE$)
