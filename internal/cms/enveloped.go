package cms

import (
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// EnvelopedData (RFC 5652 §6.1) and AuthEnvelopedData (RFC 5083 §2.1):
//
//	EnvelopedData ::= SEQUENCE {
//	    version              INTEGER,
//	    originatorInfo   [0] IMPLICIT OriginatorInfo OPTIONAL,
//	    recipientInfos       SET SIZE (1..MAX) OF RecipientInfo,
//	    encryptedContentInfo EncryptedContentInfo,
//	    unprotectedAttrs [1] IMPLICIT SET OF Attribute OPTIONAL }
//
//	AuthEnvelopedData ::= SEQUENCE {
//	    version                  INTEGER,            -- 0
//	    originatorInfo       [0] IMPLICIT OriginatorInfo OPTIONAL,
//	    recipientInfos           SET SIZE (1..MAX) OF RecipientInfo,
//	    authEncryptedContentInfo EncryptedContentInfo,
//	    authAttrs            [1] IMPLICIT SET OF Attribute OPTIONAL,
//	    mac                      OCTET STRING,
//	    unauthAttrs          [2] IMPLICIT SET OF Attribute OPTIONAL }
//
//	EncryptedContentInfo ::= SEQUENCE {
//	    contentType                OBJECT IDENTIFIER,
//	    contentEncryptionAlgorithm AlgorithmIdentifier,
//	    encryptedContent       [0] IMPLICIT OCTET STRING OPTIONAL }

// MaxRecipients is how many recipients a message may name.
const MaxRecipients = 32

// Recipient is a key that a message is encrypted to: see [ToRSA], [ToECDH], [ToKEK], [ToPassword].
type Recipient interface {
	// info encrypts the content encryption key.
	info(cek []byte) (recipientInfo, error)
	// wants is the algorithm that encrypts a content encryption key of that many octets.
	wants(keySize int) OID
}

// Key is a key that opens messages: see [FromRSA], [FromECDH], [FromKEK], [FromPassword].
type Key interface {
	// unwrap finds the content encryption key if the recipient is this key.
	// mine with an error says that it is and that it does not decrypt.
	unwrap(r recipientInfo) (cek []byte, mine bool, err error)
}

// recipientInfo is RecipientInfo (RFC 5652 §6.2), the content of one alternative with its tag:
//
//	CHOICE { ktri KeyTransRecipientInfo, kari [1] KeyAgreeRecipientInfo, kekri [2] KEKRecipientInfo,
//	         pwri [3] PasswordRecipientInfo, ori [4] OtherRecipientInfo }
type recipientInfo struct {
	tag     asn1.Tag
	version int // of ktri; that of the others follows from the tag
	body    cryptobyte.String
	keySize int // of the content encryption key, when read
}

const (
	tagKTRI = asn1.SEQUENCE
)

var (
	tagKARI  = tag1
	tagKEKRI = tag2
	tagPWRI  = tag3
)

// Seal encrypts content under a fresh key, to each recipient: EnvelopedData or,
// with a GCM cipher, AuthEnvelopedData. Errors wrap ErrAlgorithm where a key does not fit.
func Seal(content Content, c Cipher, to ...Recipient) (Content, error) {
	if len(to) == 0 || len(to) > MaxRecipients || c.KeySize() == 0 {
		return Content{}, errors.New("cms: sealing wants a cipher, and 1 to 32 recipients")
	}
	cek := make([]byte, c.KeySize())
	defer clear(cek)
	rand.Read(cek)
	version, infos := 0, [][]byte{}
	for _, recipient := range to {
		info, err := recipient.info(cek)
		if err != nil {
			return Content{}, err
		}
		der, err := encode(len(info.body)+16, func(b *cryptobyte.Builder) {
			b.AddASN1(info.tag, func(b *cryptobyte.Builder) { b.AddBytes(info.body) })
		})
		if err != nil {
			return Content{}, fmt.Errorf("cms: encoding a recipient: %w", err)
		}
		infos = append(infos, der)
		switch { // RFC 5652 §6.1
		case info.tag == tagPWRI:
			version = 3
		case info.tag != tagKTRI || info.version != 0:
			version = max(version, 2)
		}
	}
	var attrs []byte
	if c.gcm() {
		version = 0
		if !content.Type.Equal(TypeData) { // RFC 5083 §2.1
			var err error
			if attrs, err = contentTypeAttribute(content.Type); err != nil {
				return Content{}, err
			}
		}
	}
	how, ciphertext, tag, err := c.encrypt(cek, content.Bytes, attrs)
	if err != nil {
		return Content{}, err
	}
	size := 512 + len(ciphertext) + len(attrs)
	for _, info := range infos {
		size += len(info)
	}
	out, err := encode(size, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(int64(version))
			addSet(b, asn1.SET, infos...)
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(content.Type)
				c.add(b, how.iv)
				b.AddASN1(keyID0, func(b *cryptobyte.Builder) { b.AddBytes(ciphertext) })
			})
			if c.gcm() {
				if attrs != nil {
					b.AddBytes(retag(attrs, 0xa1))
				}
				b.AddASN1OctetString(tag)
			}
		})
	})
	if err != nil {
		return Content{}, fmt.Errorf("cms: encoding EnvelopedData: %w", err)
	}
	if c.gcm() {
		return Content{TypeAuthEnveloped, out}, nil
	}
	return Content{TypeEnveloped, out}, nil
}

func contentTypeAttribute(t OID) ([]byte, error) {
	return encode(128, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidContentType)
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(t) })
			})
		})
	})
}

// Open decrypts EnvelopedData or AuthEnvelopedData with a key. Of several
// recipients the first that is this key decides. Attributes are passed over, but
// for authenticated ones, which are authenticated. Errors wrap ErrMalformed,
// ErrAlgorithm, ErrRecipient or ErrDecrypt.
func Open(c Content, key Key) (Content, error) {
	e, err := parseEnveloped(c)
	if err != nil {
		return Content{}, err
	}
	for _, recipient := range e.recipients {
		cek, mine, err := key.unwrap(recipient)
		if !mine {
			continue
		}
		if err != nil {
			return Content{}, err
		}
		defer clear(cek)
		out, err := e.how.decrypt(cek, e.ciphertext, e.attrs, e.tag)
		if err != nil {
			return Content{}, err
		}
		return Content{e.contentType, out}, nil
	}
	return Content{}, ErrRecipient
}

type enveloped struct {
	recipients  []recipientInfo
	contentType OID
	how         sealed
	ciphertext  []byte
	attrs       []byte // authenticated, as SET OF
	tag         []byte
}

func parseEnveloped(c Content) (*enveloped, error) {
	authenticated := c.Type.Equal(TypeAuthEnveloped)
	want := TypeEnveloped
	if authenticated {
		want = TypeAuthEnveloped
	}
	body, err := c.open(want)
	if err != nil {
		return nil, err
	}
	e := &enveloped{}
	var version int
	var infos, encrypted, ciphertext, tag cryptobyte.String
	if !body.ReadASN1Integer(&version) || version < 0 || version > 4 || authenticated && version != 0 ||
		!body.SkipOptionalASN1(tag0) || !body.ReadASN1(&infos, asn1.SET) || !body.ReadASN1(&encrypted, asn1.SEQUENCE) {
		return nil, malformed("%s is not as RFC 5652 §6.1 has it", c.Type)
	}
	if !encrypted.ReadASN1ObjectIdentifier(&e.contentType) {
		return nil, malformed("EncryptedContentInfo without content type")
	}
	if e.how, err = readCipher(&encrypted); err != nil {
		return nil, err
	}
	if e.how.gcm() != authenticated {
		return nil, malformed("the cipher does not go with content type %s", c.Type)
	}
	if !encrypted.ReadASN1(&ciphertext, keyID0) || !encrypted.Empty() {
		return nil, malformed("EncryptedContentInfo without its content in one piece")
	}
	e.ciphertext = ciphertext
	if !authenticated {
		if !body.SkipOptionalASN1(tag1) || !body.Empty() {
			return nil, malformed("EnvelopedData is not as RFC 5652 §6.1 has it")
		}
		return e, e.readRecipients(infos)
	}
	if body.PeekASN1Tag(tag1) {
		var attrs cryptobyte.String
		if !body.ReadASN1Element(&attrs, tag1) {
			return nil, malformed("unreadable authenticated attributes")
		}
		e.attrs = retag(attrs, 0x31)
	} else if !e.contentType.Equal(TypeData) {
		return nil, malformed("AuthEnvelopedData that does not authenticate its content type")
	}
	if !body.ReadASN1(&tag, asn1.OCTET_STRING) || !body.SkipOptionalASN1(tag2) || !body.Empty() {
		return nil, malformed("AuthEnvelopedData is not as RFC 5083 §2.1 has it")
	}
	e.tag = tag
	return e, e.readRecipients(infos)
}

func (e *enveloped) readRecipients(infos cryptobyte.String) error {
	for !infos.Empty() {
		if len(e.recipients) == MaxRecipients {
			return malformed("more than %d recipients", MaxRecipients)
		}
		r := recipientInfo{keySize: e.how.KeySize()}
		if !infos.ReadAnyASN1(&r.body, &r.tag) {
			return malformed("an unreadable recipient")
		}
		e.recipients = append(e.recipients, r)
	}
	if len(e.recipients) == 0 {
		return malformed("no recipients")
	}
	return nil
}
