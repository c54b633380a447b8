package pack

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata anew")

// vectorFile is testdata/vectors.json. docs/revocation-pack.md says how to read it.
type vectorFile struct {
	Warning  string            `json:"warning"`
	Keys     map[string]string `json:"ed25519_seeds"`
	Issuer   string            `json:"issuer"`
	Delegate string            `json:"delegate"`
	Vectors  []vector          `json:"vectors"`
}

type vector struct {
	Name   string   `json:"name"`
	File   string   `json:"file"`
	Deltas []string `json:"deltas,omitempty"`
	Floor  *Floor   `json:"floor,omitempty"`
	Error  string   `json:"error,omitempty"`
	State  *expect  `json:"state,omitempty"`
}

// expect is what comes out, and what lies on the way of the last file.
type expect struct {
	Epoch        uint64   `json:"epoch"`
	Sequence     uint64   `json:"sequence"`
	ThisUpdate   int64    `json:"this_update"`
	NextUpdate   int64    `json:"next_update"`
	First        uint64   `json:"first"`
	Size         uint64   `json:"size"`
	Base         string   `json:"base,omitempty"`
	Count        uint64   `json:"count"`
	Revoked      []uint64 `json:"revoked,omitempty"`
	Rule         string   `json:"rule,omitempty"`
	RiceK        uint     `json:"rice_k"`
	Coded        string   `json:"coded,omitempty"`
	SetHash      string   `json:"set_hash"`
	StateHash    string   `json:"state_hash"`
	ToBeSigned   string   `json:"to_be_signed,omitempty"`
	SignedByKey  string   `json:"signed_by"`
	SerialStatus []check  `json:"serials"`
}

type check struct {
	Serial string `json:"serial"`
	Status string `json:"status"`
}

const millionRule = "revoked iff h < 42949673, all in uint32: h = i * 2654435761; h ^= h >> 16; h *= 2246822507; h ^= h >> 13"

func inMillion(i uint64) bool {
	h := uint32(i) * 2654435761
	h ^= h >> 16
	h *= 2246822507
	h ^= h >> 13
	return h < 42949673
}

// errorNames are the words for errors in vectors.json.
var errorNames = map[string]error{
	"malformed": ErrMalformed, "signature": ErrSignature, "signer": ErrSigner, "issuer": ErrIssuer,
	"parent": ErrParent, "result": ErrResult, "order": ErrOrder,
}

// maker builds the files and their description.
type maker struct {
	t     *testing.T
	c     *ca
	files map[string][]byte
	out   vectorFile
}

func (m *maker) file(name string, data []byte) {
	if _, ok := m.files[name]; ok {
		m.t.Fatalf("%s is there already", name)
	}
	m.files[name] = data
}

// accept describes a chain of files that leads to st.
func (m *maker) accept(name, file string, deltas []string, st *State, base Hash, by *Signer, aad []byte) {
	last := file
	if len(deltas) > 0 {
		last = deltas[len(deltas)-1]
	}
	h := st.Header()
	setHash, hash := st.set.hash(), st.Hash()
	offsets := st.set.offsets(h.First)
	x := &expect{
		Epoch: h.Epoch, Sequence: h.Sequence, ThisUpdate: h.ThisUpdate.Unix(), NextUpdate: h.NextUpdate.Unix(), First: h.First, Size: h.Size,
		Count: st.Revoked(), RiceK: riceParameter(offsets), SetHash: hex.EncodeToString(setHash[:]), StateHash: hex.EncodeToString(hash[:]),
		SignedByKey: "issuer",
	}
	if base != (Hash{}) {
		x.Base = hex.EncodeToString(base[:])
	}
	if by.cert != by.issuer {
		x.SignedByKey = "delegate"
	}
	if st.Revoked() > 1000 {
		x.Rule = millionRule
	} else {
		want := ""
		if len(deltas) == 0 {
			want = contentType
		}
		e := must[*envelope](m.t)(parseEnvelope(m.files[last], want))
		x.Revoked = slices.Collect(st.All())
		x.Coded = hex.EncodeToString(encodeRice(nil, x.RiceK, offsets))
		x.ToBeSigned = hex.EncodeToString(e.toBeSigned(aad))
	}
	end := h.First + h.Size
	ask := []uint64{h.First, end - 1, end, MaxIndex}
	if h.First > 0 {
		ask = append(ask, h.First-1)
	}
	for index := range st.All() {
		if ask = append(ask, index, index+1); len(ask) > 24 {
			break
		}
	}
	ask = slices.DeleteFunc(ask, func(index uint64) bool { return index > MaxIndex })
	slices.Sort(ask)
	for _, index := range slices.Compact(ask) {
		x.SerialStatus = append(x.SerialStatus, check{hex.EncodeToString(serialOf(index)), st.Index(index).String()})
	}
	for _, odd := range []string{"", "05", "02" + hex.EncodeToString(serialOf(h.First))[2:], "00" + hex.EncodeToString(serialOf(h.First))} {
		x.SerialStatus = append(x.SerialStatus, check{odd, "unknown"})
	}
	m.out.Vectors = append(m.out.Vectors, vector{Name: name, File: file, Deltas: deltas, State: x})
}

func (m *maker) refuse(name, why, file string, deltas ...string) {
	m.out.Vectors = append(m.out.Vectors, vector{Name: name, File: file, Deltas: deltas, Error: why})
}

// testCA takes the certificates from testdata, which -update makes: their encoding is not what is tested here.
func testCA(t *testing.T) (c *ca, delegate *x509.Certificate) {
	key := testKey("issuer")
	if *update {
		made := newCA(t, key)
		_, cert := made.delegate(t, testKey("delegate"), delegateTemplate())
		writeFile(t, "issuer.der", made.cert.Raw)
		writeFile(t, "delegate.der", cert.Raw)
	}
	read := func(name string) *x509.Certificate {
		return must[*x509.Certificate](t)(x509.ParseCertificate(readFile(t, name)))
	}
	c = &ca{cert: read("issuer.der"), key: key}
	c.sign = must[*Signer](t)(NewSigner(c.cert, key, nil))
	return c, read("delegate.der")
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	return must[[]byte](t)(os.ReadFile(filepath.Join("testdata", name)))
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func makeVectors(t *testing.T) *maker {
	c, delegateCert := testCA(t)
	m := &maker{t: t, c: c, files: map[string][]byte{}, out: vectorFile{
		Warning: "The keys are for tests and known to all. Never trust them.",
		Keys: map[string]string{
			"issuer": hex.EncodeToString(testKey("issuer").Seed()), "delegate": hex.EncodeToString(testKey("delegate").Seed()),
		},
		Issuer: "issuer.der", Delegate: "delegate.der",
	}}
	delegate := must[*Signer](t)(NewSigner(c.cert, testKey("delegate"), delegateCert))
	state := func(h Header, revoked ...uint64) *State { return must[*State](t)(NewState(h, slices.Values(revoked))) }
	full := func(name string, st *State, base Hash, by *Signer) {
		m.file(name+".cbor", must[[]byte](t)(st.Sign(by, base)))
		m.accept(name, name+".cbor", nil, st, base, by, nil)
	}
	delta := func(name string, from, to *State, by *Signer, file string, before ...string) {
		hash := from.Hash()
		m.file(name+".cbor", must[[]byte](t)(from.Delta(to, by)))
		m.accept(name, file, append(before, name+".cbor"), to, Hash{}, by, hash[:])
	}

	full("empty", state(c.header(0, 0, 0, 1000)), Hash{}, c.sign)
	small := state(c.header(1, 1, 0, 1000), 0, 1, 2, 130, 131, 400, 512, 777, 998, 999)
	full("small", small, Hash{}, c.sign)
	full("blocks", state(c.header(7, 300, 65_530, 131_100), 65_530, 65_535, 65_536, 131_071, 131_072, 196_000, 196_629), small.Hash(), c.sign)
	full("single-highest", state(c.header(1, 1, 0, MaxIndex+1), MaxIndex), Hash{}, c.sign)

	growth := must[*State](t)(small.Next(c.header(1, 2, 0, 1024), revocations(5, 1023)))
	delta("growth", small, growth, c.sign, "small.cbor")
	unhold := must[*State](t)(growth.Next(c.header(1, 3, 0, 1024), func(yield func(uint64, bool) bool) {
		_ = yield(130, false) && yield(131, false) && yield(600, true)
	}))
	delta("unhold", growth, unhold, c.sign, "small.cbor", "growth.cbor")
	renewed := must[*State](t)(unhold.Next(c.header(1, 4, 0, 1024), revocations()))
	delta("no-change", unhold, renewed, c.sign, "small.cbor", "growth.cbor", "unhold.cbor")
	epoch := must[*State](t)(renewed.Next(c.header(2, 5, 513, 70_000), revocations(70_000, 70_512)))
	delta("new-epoch", renewed, epoch, c.sign, "small.cbor", "growth.cbor", "unhold.cbor", "no-change.cbor")
	delta("cumulative", small, epoch, c.sign, "small.cbor")

	delegated := state(c.header(1, 1, 0, 1000), 3, 4)
	full("delegated", delegated, Hash{}, delegate)
	later := must[*State](t)(delegated.Next(c.header(1, 2, 0, 1000), revocations(501)))
	delta("delegated-delta", delegated, later, delegate, "delegated.cbor")
	delta("delegated-delta-brief", delegated, later, delegate.Brief(), "delegated.cbor")

	var million []uint64
	for i := range uint64(1_000_000) {
		if inMillion(i) {
			million = append(million, i)
		}
	}
	full("million", state(c.header(1, 1, 0, 1_000_000), million...), Hash{}, c.sign)

	m.refusals(small, growth, delegated)
	return m
}

// refusals are packs that a careless reader would take.
func (m *maker) refusals(small, growth, delegated *State) {
	c := m.c
	issuer := IssuerHash(c.cert)
	from := uint64(epochStart.Unix())
	good := []element{num(1), str(issuer[:]), num(1), num(1), num(from), num(from + 3600), num(0), num(100), str(nil), num(3), num(1), str([]byte{0b10100000})}
	bad := func(name, why string, data []byte) {
		m.file("bad-"+name+".cbor", data)
		m.refuse(name, why, "bad-"+name+".cbor")
	}
	payload := func(name, why string, elements []element) {
		bad(name, why, c.raw(m.t, contentType, nil, array(elements)))
	}
	original := m.files["small.cbor"]
	flipped := bytes.Clone(original)
	flipped[len(flipped)-1] ^= 1
	bad("signature", "signature", flipped)
	bad("trailing-octet", "malformed", append(bytes.Clone(original), 0))
	bad("untagged", "malformed", original[1:])
	payload("integer-not-shortest", "malformed", replaced(good, 2, octets(0x18, 1)))
	payload("rice-parameter-not-shortest", "malformed", append(slices.Clone(good[:9]), num(4), num(1), str([]byte{0b01100000})))
	payload("padding", "malformed", replaced(good, 11, str([]byte{0b10100001})))
	payload("octet-after-set", "malformed", replaced(good, 11, str([]byte{0b10100000, 0})))
	payload("index-outside-universe", "malformed", replaced(good, 7, num(12)))
	payload("count-too-high", "malformed", replaced(good, 10, num(2)))
	payload("times-turned-round", "malformed", replaced(good, 5, num(from)))
	payload("universe-beyond-48-bits", "malformed", replaced(good, 6, num(MaxIndex)))
	payload("other-issuer", "issuer", replaced(good, 1, str(bytes.Repeat([]byte{1}, 32))))

	wrongEKU := delegateTemplate()
	wrongEKU.UnknownExtKeyUsage[0][8] = 3
	short := delegateTemplate()
	short.NotAfter = epochStart.Add(day)
	revoked := delegateTemplate()
	revoked.SerialNumber.SetBytes(serialOf(4))
	for name, template := range map[string]*x509.Certificate{"delegate-usage": wrongEKU, "delegate-ends-early": short, "delegate-revoked": revoked} {
		key := testKey("delegate")
		cert := certificate(m.t, template, c.cert, key.Public(), c.key)
		alg := must[algorithm](m.t)(algorithmOf(key.Public()))
		e := envelope{contentType: contentType, kid: keyID(cert), alg: alg.id, cert: cert.Raw, payload: delegated.appendPack(nil, Hash{})}
		e.protected = e.appendProtected(nil)
		e.signature = must[[]byte](m.t)(alg.sign(key, e.toBeSigned(nil)))
		m.file("bad-"+name+".cbor", e.append(nil))
	}
	for _, name := range []string{"delegate-ends-early", "delegate-revoked", "delegate-usage"} {
		m.refuse(name, "signer", "bad-"+name+".cbor")
	}

	hash := small.Hash()
	change := small.appendDelta(nil, growth)
	result := growth.Hash()
	m.file("bad-delta-result.cbor", c.raw(m.t, "", hash[:], bytes.Replace(change, result[:8], hash[:8], 1)))
	m.refuse("delta-result", "result", "small.cbor", "bad-delta-result.cbor")
	m.file("bad-delta-parent-not-signed.cbor", c.raw(m.t, "", nil, change))
	m.refuse("delta-parent-not-signed", "signature", "small.cbor", "bad-delta-parent-not-signed.cbor")
	m.refuse("delta-for-another-parent", "parent", "small.cbor", "unhold.cbor")
	m.refuse("delta-twice", "parent", "small.cbor", "growth.cbor", "growth.cbor")
	m.refuse("delta-as-pack", "malformed", "growth.cbor")
	for _, v := range []vector{
		{Name: "rollback-sequence", File: "small.cbor", Floor: &Floor{1, 2}, Error: "rollback"},
		{Name: "rollback-epoch", File: "small.cbor", Floor: &Floor{2, 0}, Error: "rollback"},
		{Name: "rollback-after-delta", File: "small.cbor", Deltas: []string{"growth.cbor"}, Floor: &Floor{1, 3}, Error: "rollback"},
	} {
		m.out.Vectors = append(m.out.Vectors, v)
	}
}

// TestVectorsAreReproduced builds each file again, octet by octet the same.
func TestVectorsAreReproduced(t *testing.T) {
	m := makeVectors(t)
	m.files["vectors.json"] = append(must[[]byte](t)(json.MarshalIndent(m.out, "", "  ")), '\n')
	for name, data := range m.files {
		if *update {
			writeFile(t, name, data)
		}
		if !bytes.Equal(readFile(t, name), data) {
			t.Errorf("testdata/%s is not what is built now", name)
		}
	}
	for _, entry := range must[[]os.DirEntry](t)(os.ReadDir("testdata")) {
		if _, ok := m.files[entry.Name()]; !ok && filepath.Ext(entry.Name()) == ".cbor" {
			t.Errorf("testdata/%s is described nowhere", entry.Name())
		}
	}
}

// TestVectors reads the files as a stranger would, by vectors.json.
func TestVectors(t *testing.T) {
	var all vectorFile
	if err := json.Unmarshal(readFile(t, "vectors.json"), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Vectors) < 30 {
		t.Fatalf("%d vectors", len(all.Vectors))
	}
	issuer := must[*x509.Certificate](t)(x509.ParseCertificate(readFile(t, all.Issuer)))
	for _, v := range all.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			o := Options{Issuer: issuer}
			if v.Floor != nil {
				o.Floor = *v.Floor
			}
			var deltas [][]byte
			for _, name := range v.Deltas {
				deltas = append(deltas, readFile(t, name))
			}
			p, err := Verify(readFile(t, v.File), o, deltas...)
			switch v.Error {
			case "":
				if err != nil {
					t.Fatal(err)
				}
				v.State.compare(t, p)
			case "rollback":
				if _, ok := errors.AsType[*RollbackError](err); !ok {
					t.Fatal(err)
				}
			default:
				if want := errorNames[v.Error]; want == nil || !errors.Is(err, want) {
					t.Fatalf("%v, want %s", err, v.Error)
				}
			}
		})
	}
}

func (x *expect) compare(t *testing.T, p *Pack) {
	h, hash := p.Header(), p.Hash()
	if h.Epoch != x.Epoch || h.Sequence != x.Sequence || h.ThisUpdate.Unix() != x.ThisUpdate || h.NextUpdate.Unix() != x.NextUpdate ||
		h.First != x.First || h.Size != x.Size || p.Revoked() != x.Count || hex.EncodeToString(hash[:]) != x.StateHash {
		t.Errorf("got %+v", h)
	}
	if x.Rule == "" && !slices.Equal(slices.Collect(p.All()), x.Revoked) {
		t.Errorf("revoked %v", slices.Collect(p.All()))
	}
	if x.Rule != "" {
		for i := range h.Size {
			if (p.Index(i) == Revoked) != inMillion(i) {
				t.Fatalf("index %d: %s", i, p.Index(i))
			}
		}
	}
	for _, c := range x.SerialStatus {
		got, err := p.Status(must[[]byte](t)(hex.DecodeString(c.Serial)), time.Unix(x.ThisUpdate, 0))
		if got.String() != c.Status || err != nil {
			t.Errorf("serial %s: %s, %v; want %s", c.Serial, got, err, c.Status)
		}
	}
}
