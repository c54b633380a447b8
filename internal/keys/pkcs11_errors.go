//go:build cgo

package keys

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Return values of PKCS#11 3.0 that are missing from miekg/pkcs11.
const (
	ckrTokenResourceExceeded = 0x201
	ckrOperationCancelFailed = 0x202
)

// lost reports whether err means that sessions, login, token or module are
// gone, so that reconnecting may help. Mistakes of a caller are refused before
// they reach the token (checkDigest, checkLabel, checkSecret), so that none of
// these codes is theirs.
func lost(err error) bool {
	if errors.Is(err, errStale) {
		return true
	}
	ck, ok := errors.AsType[pkcs11.Error](err)
	if !ok {
		return false
	}
	switch ck {
	case pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_CANT_LOCK,
		pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED,
		pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_SESSION_HANDLE_INVALID,
		pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID,
		pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		pkcs11.CKR_OPERATION_ACTIVE, pkcs11.CKR_OPERATION_NOT_INITIALIZED, pkcs11.CKR_FUNCTION_CANCELED,
		pkcs11.CKR_MUTEX_BAD, pkcs11.CKR_MUTEX_NOT_LOCKED,
		ckrTokenResourceExceeded, ckrOperationCancelFailed:
		return true
	}
	// A vendor's own codes are about the vendor's device.
	return ck >= pkcs11.CKR_VENDOR_DEFINED
}

// harmless reports whether the token refused before it did anything, so that
// even a call that is not idempotent may be made again.
func harmless(err error) bool {
	return errors.Is(err, errStale) ||
		errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID)) ||
		errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_CLOSED)) ||
		errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)) ||
		errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED))
}

// ckError says which function failed, and marks with ours what callers tell apart.
func ckError(function string, err error) error {
	ck, ok := errors.AsType[pkcs11.Error](err)
	if !ok {
		return fmt.Errorf("keys: %s: %w", function, err)
	}
	switch ck {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED:
		return fmt.Errorf("%w (%s: %w); it is not tried again: correct the PIN and restart", ErrPIN, function, ck)
	case pkcs11.CKR_PIN_LOCKED:
		return fmt.Errorf("%w: the PIN is locked (%s: %w): the security officer must set it anew", ErrPIN, function, ck)
	case pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return fmt.Errorf("%w: the token has no user PIN yet (%s: %w)", ErrPIN, function, ck)
	}
	if lost(err) || ck == pkcs11.CKR_SESSION_COUNT {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, function, ck)
	}
	return fmt.Errorf("keys: %s: %w", function, ck)
}
