//go:build cgo

package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/deviceca/deviceca/internal/keys"
)

// token is a SoftHSM token of this program's own, of the kind that `deviceca init` makes,
// with one P-256 key: reached through internal/keys, and bare.
type token struct {
	provider keys.Provider
	key      keys.Key
	bare     *pkcs11.Ctx
	slot     uint
}

const (
	tokenLabel = "bench"
	tokenPIN   = "bench-user"
)

func openToken(ctx context.Context, dir string) (*token, error) {
	module, err := keys.FindModule()
	if err != nil {
		return nil, err
	}
	tokens, conf, pin := filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "pin")
	err = errors.Join(os.Mkdir(tokens, 0o700),
		os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600),
		os.WriteFile(pin, []byte(tokenPIN+"\n"), 0o600), os.Setenv("SOFTHSM2_CONF", conf))
	if err != nil {
		return nil, err
	}
	if err := keys.InitToken(module, tokenLabel, "bench-officer", tokenPIN); err != nil {
		return nil, err
	}
	source, err := keys.ParsePINSource("file:" + pin)
	if err != nil {
		return nil, err
	}
	t := &token{}
	if t.provider, err = keys.Open(ctx, keys.URI{Token: tokenLabel, ModulePath: module, PINSource: source}.String(), keys.Options{}); err != nil {
		return nil, err
	}
	if t.key, err = t.provider.Generate(ctx, "sign", keys.ECDSAP256); err != nil {
		return nil, errors.Join(err, t.close())
	}
	// The provider has initialised the module and logged in, for the whole process.
	if t.bare = pkcs11.New(module); t.bare == nil {
		return nil, errors.Join(fmt.Errorf("the PKCS#11 module %s does not load", module), t.close())
	}
	slots, err := t.bare.GetSlotList(true)
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	for _, slot := range slots {
		if info, err := t.bare.GetTokenInfo(slot); err == nil && strings.TrimRight(info.Label, " \x00") == tokenLabel {
			t.slot = slot
			return t, nil
		}
	}
	return nil, errors.Join(errors.New("the token that was just made is not there"), t.close())
}

func (t *token) close() error { return t.provider.Close() }

// bareSigners sign by miekg/pkcs11 alone, with a session each and the key's handle looked up before.
func (t *token) bareSigners(n int) (signers []func() error, done func(), err error) {
	var sessions []pkcs11.SessionHandle
	done = func() {
		for _, s := range sessions {
			t.bare.CloseSession(s)
		}
	}
	digest := sha256.Sum256([]byte("bench"))
	for range n {
		s, err := t.bare.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return nil, done, err
		}
		sessions = append(sessions, s)
		if err := t.bare.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}); err != nil {
			return nil, done, err
		}
		found, _, err := t.bare.FindObjects(s, 2)
		if err = errors.Join(err, t.bare.FindObjectsFinal(s)); err != nil || len(found) != 1 {
			return nil, done, fmt.Errorf("%d private keys on the token: %w", len(found), err)
		}
		signers = append(signers, func() error {
			if err := t.bare.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, found[0]); err != nil {
				return err
			}
			_, err := t.bare.Sign(s, digest[:])
			return err
		})
	}
	return signers, done, nil
}

func (t *token) poolSigners(n int) []func() error {
	digest := sha256.Sum256([]byte("bench"))
	return slices.Repeat([]func() error{func() error { _, err := t.key.Sign(nil, digest[:], crypto.SHA256); return err }}, n)
}

// turn is how many signatures are made before the other way has its turn: some
// 10 ms, which is shorter than what disturbs a busy machine.
const turn = 200

// compare signs in turns, bare, pool, pool, bare, so that a drift of the
// machine's rate hits both alike, for the time given.
func (t *token) compare(ctx context.Context, goroutines int, limit time.Duration) (signing, error) {
	result := signing{Goroutines: goroutines}
	bare, done, err := t.bareSigners(goroutines)
	defer done()
	if err != nil {
		return result, err
	}
	pool := t.poolSigners(goroutines)
	var all [2]effort // bare, pool
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		var pair [2]effort
		for _, way := range []int{0, 1, 1, 0} {
			e, err := spend(turn, [][]func() error{bare, pool}[way])
			if err != nil {
				return result, err
			}
			pair[way] = pair[way].plus(e)
		}
		result.ratios = append(result.ratios, pair[0].wall.Seconds()/pair[1].wall.Seconds())
		result.cpuRatios = append(result.cpuRatios, pair[0].cpu.Seconds()/pair[1].cpu.Seconds())
		all[0], all[1] = all[0].plus(pair[0]), all[1].plus(pair[1])
	}
	result.BarePerSecond, result.BarePerCPUSecond = all[0].rates()
	result.PoolPerSecond, result.PoolPerCPUSecond = all[1].rates()
	result.Ratio, result.CPURatio = median(result.ratios), median(result.cpuRatios)
	return result, nil
}
