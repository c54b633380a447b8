package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
)

// original is what a registration authority shows of the message whose protection
// it has replaced.
type original struct {
	sender cmp.GeneralName
	device string // that it was signed for; "" where the RA alone can tell
}

// checkOriginal looks at the origPKIMessage of a registration authority (RFC 9810
// §5.1.1.3), so that what it asks for is what a device asked it for. It may leave
// it out, and in messages of others it means nothing.
//
// A signature there must verify. If it was made with a certificate that we know, the
// request must be for that device; other certificates, and secrets, are the RA's to know.
func (x *exchange) checkOriginal(ctx context.Context) error {
	x.original = original{}
	if x.requester.RA == nil {
		return nil
	}
	list, found, err := x.asked.Header.GeneralInfo.OrigPKIMessage(limits)
	if err != nil || !found {
		return err
	}
	if len(list) != 1 {
		return refuse(cmp.BadRequest, "RFC 9810 §5.1.1.3", "origPKIMessage has %d messages: show one", len(list))
	}
	m := list[0]
	switch h := &x.asked.Header; {
	case m.Body.Type() == cmp.KUR || generatesKey(m.Body):
		return refuse(cmp.NotAuthorized, "RFC 9483 §5.2.3", "the protection of a kur, or of a request for a key, must stay: nest it")
	case !bytes.Equal(m.Header.TransactionID, h.TransactionID):
		return refuse(cmp.BadRequest, "RFC 9483 §5.2.3", "origPKIMessage has another transactionID")
	case !bytes.Equal(m.Header.SenderNonce, h.SenderNonce):
		return refuse(cmp.BadSenderNonce, "RFC 9483 §5.2.3", "origPKIMessage has another senderNonce")
	case m.Protection == nil:
		return refuse(cmp.BadMessageCheck, "RFC 9483 §5.2.3", "origPKIMessage is not protected")
	case m.UsesMAC():
		return nil
	}
	by := original{sender: m.Header.Sender}
	_, err = m.Verify(cmp.VerifyOptions{Trust: func(signer *x509.Certificate, others []*x509.Certificate) error {
		by.device, err = x.signedFor(ctx, signer, others)
		return err
	}})
	if err == nil {
		x.original = by
	}
	return err
}

// generatesKey reports whether a request asks the CA to make its key: that is
// encrypted for whoever protected the request (RFC 9483 §4.1.6).
func generatesKey(b cmp.Body) bool {
	requests, ok := b.(*cmp.CertRequests)
	return ok && slices.ContainsFunc(requests.Requests, func(r *cmp.CertReqMsg) bool {
		_, asked := r.Template.KeyGeneration()
		return asked
	})
}

// signedFor is the device that a certificate speaks for, "" if it is foreign.
func (x *exchange) signedFor(ctx context.Context, signer *x509.Certificate, others []*x509.Certificate) (string, error) {
	r, err := x.Authority.AuthenticateCertificate(ctx, append([]*x509.Certificate{signer}, others...))
	if err == nil && r.Device != "" { // one that expired speaks for its device no longer
		err = x.Authority.MayActFor(ctx, r, ca.Deed{Act: ca.ActAsk})
	}
	if ca.KindOf(err) != ca.Unauthenticated || err == nil {
		return r.Device, err
	}
	serial, ours := ca.SerialFromBig(signer.SerialNumber)
	if !ours {
		return "", nil
	}
	switch c, ledgerErr := x.Ledger.CertificateBySerial(ctx, serial); {
	case errors.Is(ledgerErr, ca.ErrNoRecord):
		return "", nil
	case ledgerErr != nil:
		return "", ledgerErr
	case bytes.Equal(c.DER, signer.Raw):
		return "", err // one of ours, and no longer good
	}
	return "", nil
}

// popSender is who a proof of possession may name (RFC 4211 §4.1): the one that has
// protected the request first.
func (x *exchange) popSender() cmp.GeneralName {
	if x.original.sender != nil {
		return x.original.sender
	}
	return x.asked.Header.Sender
}

// sameOriginal reports whether what is asked for the device id is in line with the original.
func (x *exchange) sameOriginal(id string) bool {
	return x.original.device == "" || device.SameID(x.original.device, id)
}
