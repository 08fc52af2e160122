// A second implementation of KEMTLS, the full flow and the one with a stored key, written from the profile alone and
// sharing nothing with the Python one: X25519MLKEM768, TLS_AES_128_GCM_SHA256, ML-KEM-768 leaves under an ECDSA CA (this
// Go has no ML-DSA), no HelloRetryRequest.
//
// peer client|server PORT HOST|- CA.pem LEAF.der SEED.hex mutual|server-only [STORED.der]
//
// With STORED.der, the server's SubjectPublicKeyInfo, a client uses the stored key, and a server expects that.
// With the environment variable DELEGATED, the file of a delegated credential, LEAF.der signs and SEED.hex is the
// credential's, and the other side may show one, too.
package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func u16(n int) []byte                       { return binary.BigEndian.AppendUint16(nil, uint16(n)) }
func u24(n int) []byte                       { return []byte{byte(n >> 16), byte(n >> 8), byte(n)} }
func vec8(b []byte) []byte                   { return append([]byte{byte(len(b))}, b...) }
func vec16(b []byte) []byte                  { return append(u16(len(b)), b...) }
func vec24(b []byte) []byte                  { return append(u24(len(b)), b...) }
func cat(parts ...[]byte) []byte             { return bytes.Join(parts, nil) }
func extension(kind int, body []byte) []byte { return cat(u16(kind), vec16(body)) }

// -- HKDF ------------------------------------------------------------------------------------------------------------

var zeros = make([]byte, 32)

func extract(salt, ikm []byte) []byte { return must(hkdf.Extract(sha256.New, ikm, salt)) }
func label(secret []byte, name string, context []byte, size int) []byte {
	info := cat(u16(size), vec8([]byte("tls13 "+name)), vec8(context))
	return must(hkdf.Expand(sha256.New, secret, string(info), size))
}
func derive(secret []byte, name string, transcript []byte) []byte {
	digest := sha256.Sum256(transcript)
	return label(secret, name, digest[:], 32)
}
func mac(key, transcript []byte) []byte {
	digest := sha256.Sum256(transcript)
	h := hmac.New(sha256.New, key)
	h.Write(digest[:])
	return h.Sum(nil)
}

// -- records ---------------------------------------------------------------------------------------------------------

type direction struct {
	aead cipher.AEAD
	iv   []byte
	seq  uint64
}

func (d *direction) use(secret []byte) {
	d.aead = must(cipher.NewGCM(must(aes.NewCipher(label(secret, "key", nil, 16)))))
	d.iv, d.seq = label(secret, "iv", nil, 12), 0
}
func (d *direction) nonce() []byte {
	nonce := bytes.Clone(d.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, d.seq) {
		nonce[4+i] ^= b
	}
	d.seq++
	return nonce
}

type link struct {
	net.Conn
	in, out    direction
	transcript []byte
	messages   []byte
}

func (l *link) record(kind byte, content []byte) {
	if l.out.aead != nil {
		inner := append(bytes.Clone(content), kind)
		header := cat([]byte{23, 3, 3}, u16(len(inner)+16))
		must(l.Write(append(header, l.out.aead.Seal(nil, l.out.nonce(), inner, header)...)))
		return
	}
	must(l.Write(cat([]byte{kind, 3, 3}, vec16(content))))
}
func (l *link) next() (byte, []byte) {
	header := make([]byte, 5)
	must(io.ReadFull(l, header))
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	must(io.ReadFull(l, body))
	if header[0] == 20 {
		return l.next()
	}
	if l.in.aead == nil || header[0] != 23 {
		return header[0], body
	}
	inner := bytes.TrimRight(must(l.in.aead.Open(nil, l.in.nonce(), body, header)), "\x00")
	return inner[len(inner)-1], inner[:len(inner)-1]
}
func (l *link) send(kind byte, body []byte) {
	message := cat([]byte{kind}, vec24(body))
	l.transcript = append(l.transcript, message...)
	l.record(22, message)
}
func (l *link) message(want byte) []byte {
	for len(l.messages) < 4 || len(l.messages) < 4+int(binary.BigEndian.Uint32(l.messages)&0xffffff) {
		kind, content := l.next()
		if kind != 22 {
			panic(fmt.Sprintf("record of type %d: %x", kind, content))
		}
		l.messages = append(l.messages, content...)
	}
	size := 4 + int(binary.BigEndian.Uint32(l.messages)&0xffffff)
	message := bytes.Clone(l.messages[:size])
	l.messages = l.messages[size:]
	if message[0] != want {
		panic(fmt.Sprintf("message %d instead of %d", message[0], want))
	}
	l.transcript = append(l.transcript, message...)
	return message[4:]
}

// -- messages --------------------------------------------------------------------------------------------------------

type reader []byte

func (r *reader) take(n int) []byte { part := (*r)[:n]; *r = (*r)[n:]; return part }
func (r *reader) number(n int) int {
	value := 0
	for _, b := range r.take(n) {
		value = value<<8 | int(b)
	}
	return value
}
func (r *reader) vector(n int) reader { return reader(r.take(r.number(n))) }
func (r *reader) extensions() map[int]reader {
	found, block := map[int]reader{}, r.vector(2)
	for len(block) > 0 {
		kind := block.number(2)
		found[kind] = block.vector(2)
	}
	return found
}

type identity struct {
	der, seed, ca, delegated []byte
}

const delegatedCredential = 34

func (me identity) certificate() []byte {
	extra := []byte(nil)
	if me.delegated != nil {
		extra = extension(delegatedCredential, me.delegated)
	}
	return cat(vec8(nil), vec24(cat(vec24(me.der), vec16(extra))))
}

// The SubjectPublicKeyInfo in a delegated credential, checked as RFC 9345 section 4.1.3 says.
func delegatedKey(raw reader, leaf *x509.Certificate, side string) []byte {
	whole := bytes.Clone(raw)
	seconds, scheme, spki := raw.number(4), raw.number(2), raw.vector(3)
	signed := whole[:len(whole)-len(raw)]
	algorithm, signature := raw.number(2), raw.vector(2)
	end := leaf.NotBefore.Add(time.Duration(seconds) * time.Second)
	if now := time.Now(); now.After(end) || end.After(now.Add(7*24*time.Hour)) {
		panic("a credential of another time")
	}
	permits := false
	for _, each := range leaf.Extensions {
		permits = permits || each.Id.String() == "1.3.6.1.4.1.44363.44"
	}
	context := cat(bytes.Repeat([]byte(" "), 64), []byte("TLS, "+side+" delegated credentials\x00"))
	digest := sha256.Sum256(cat(context, leaf.Raw, signed, u16(algorithm)))
	if !permits || scheme != 0xFE02 || algorithm != 0x0403 ||
		!ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), digest[:], signature) {
		panic("a wrong credential")
	}
	return spki
}
func (me identity) decapsulate(body []byte) []byte {
	r := reader(body)
	if len(r.vector(1)) != 0 {
		panic("a context")
	}
	return must(must(mlkem.NewDecapsulationKey768(me.seed)).Decapsulate(r.vector(2)))
}
func (me identity) encapsulate(certificate []byte, host string, usage x509.ExtKeyUsage) (secret, body []byte) {
	r := reader(certificate)
	r.vector(1)
	list := r.vector(3)
	leaf := must(x509.ParseCertificate(list.vector(3)))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(me.ca)
	must(leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}}))
	spki := leaf.RawSubjectPublicKeyInfo
	if raw, ok := list.extensions()[delegatedCredential]; ok {
		side := map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "server", x509.ExtKeyUsageClientAuth: "client"}
		spki = delegatedKey(raw, leaf, side[usage])
	}
	secret, ciphertext := must(mlkem.NewEncapsulationKey768(spki[len(spki)-1184:])).Encapsulate()
	return secret, cat(vec8(nil), vec16(ciphertext))
}

var authentication = cat(extension(13, vec16(u16(0xFE02))), extension(50, vec16(u16(0x0403))))

func (l *link) handshakeSecret(shared []byte) []byte {
	return extract(derive(extract(zeros, zeros), "derived", nil), shared)
}

type shares struct {
	kem   *mlkem.DecapsulationKey768
	curve *ecdh.PrivateKey
}

func (l *link) hello(host string, more []byte) shares {
	kem, curve := must(mlkem.GenerateKey768()), must(ecdh.X25519().GenerateKey(rand.Reader))
	random := make([]byte, 64)
	rand.Read(random)
	share := cat(kem.EncapsulationKey().Bytes(), curve.PublicKey().Bytes())
	offered := cat(extension(0, vec16(cat([]byte{0}, vec16([]byte(host))))), extension(10, vec16(u16(0x11EC))),
		authentication, extension(16, vec16(vec8([]byte("logfwd/1")))), extension(43, vec8(u16(0x0304))),
		extension(51, vec16(cat(u16(0x11EC), vec16(share)))), more)
	l.send(1, cat(u16(0x0303), random[:32], vec8(random[32:]), vec16(u16(0x1301)), vec8([]byte{0}), vec16(offered)))
	return shares{kem, curve}
}

// The shared secret, and the extensions of the ServerHello.
func (l *link) serverHello(own shares) ([]byte, map[int]reader) {
	hello := reader(l.message(2))
	hello.take(34)
	hello.vector(1)
	hello.take(3)
	found := hello.extensions()
	answer := found[51]
	answer.take(2)
	theirs := answer.vector(2)
	ciphertext := theirs.take(1088)
	public := must(ecdh.X25519().NewPublicKey(theirs))
	return cat(must(own.kem.Decapsulate(ciphertext)), must(own.curve.ECDH(public))), found
}

func (l *link) client(me identity, host string, mutual bool) {
	own := l.hello(host, nil)
	shared, _ := l.serverHello(own)
	hs := l.handshakeSecret(shared)
	clientHs := derive(hs, "c hs traffic", l.transcript)
	l.in.use(derive(hs, "s hs traffic", l.transcript))
	l.message(8)
	if mutual {
		l.message(13)
	}
	secret, body := me.encapsulate(l.message(11), host, x509.ExtKeyUsageServerAuth)
	l.Write([]byte{20, 3, 3, 0, 1, 1})
	l.out.use(clientHs)
	l.send(30, body)
	ahs := extract(derive(hs, "derived", nil), secret)
	l.out.use(derive(ahs, "c ahs traffic", l.transcript))
	l.in.use(derive(ahs, "s ahs traffic", l.transcript))
	mine := zeros
	if mutual {
		l.send(11, me.certificate())
		mine = me.decapsulate(l.message(30))
	}
	ms := extract(derive(ahs, "derived", nil), mine)
	l.send(20, mac(label(ms, "c finished", nil, 32), l.transcript))
	l.out.use(derive(ms, "c ap traffic", l.transcript))
	expected := mac(label(ms, "s finished", nil, 32), l.transcript)
	if !hmac.Equal(l.message(20), expected) {
		panic("finished")
	}
	l.in.use(derive(ms, "s ap traffic", l.transcript))
}

func (l *link) clientHello() (session []byte, offered map[int]reader) {
	hello := reader(l.message(1))
	hello.take(34)
	session = hello.vector(1)
	hello.vector(2)
	hello.vector(1)
	return session, hello.extensions()
}

func (l *link) answer(session []byte, offered map[int]reader, more []byte) []byte {
	entry := offered[51]
	list := entry.vector(2)
	list.take(2)
	share := list.vector(2)
	secret, ciphertext := must(mlkem.NewEncapsulationKey768(share.take(1184))).Encapsulate()
	curve := must(ecdh.X25519().GenerateKey(rand.Reader))
	shared := cat(secret, must(curve.ECDH(must(ecdh.X25519().NewPublicKey(share)))))
	random := make([]byte, 32)
	rand.Read(random)
	answer := cat(u16(0x11EC), vec16(cat(ciphertext, curve.PublicKey().Bytes())))
	l.send(2, cat(u16(0x0303), random, vec8(session), u16(0x1301), []byte{0},
		vec16(cat(extension(43, u16(0x0304)), extension(51, answer), more))))
	l.record(20, []byte{1})
	return shared
}

func (l *link) server(me identity, mutual bool) {
	session, offered := l.clientHello()
	shared := l.answer(session, offered, nil)
	hs := l.handshakeSecret(shared)
	l.in.use(derive(hs, "c hs traffic", l.transcript))
	l.out.use(derive(hs, "s hs traffic", l.transcript))
	l.send(8, vec16(extension(16, vec16(vec8([]byte("logfwd/1"))))))
	if mutual {
		l.send(13, cat(vec8(nil), vec16(authentication)))
	}
	l.send(11, me.certificate())
	ahs := extract(derive(hs, "derived", nil), me.decapsulate(l.message(30)))
	l.in.use(derive(ahs, "c ahs traffic", l.transcript))
	write := derive(ahs, "s ahs traffic", l.transcript)
	peer := zeros
	if mutual {
		secret, body := me.encapsulate(l.message(11), "", x509.ExtKeyUsageClientAuth)
		l.out.use(write)
		l.send(30, body)
		peer = secret
	}
	ms := extract(derive(ahs, "derived", nil), peer)
	expected := mac(label(ms, "c finished", nil, 32), l.transcript)
	if !hmac.Equal(l.message(20), expected) {
		panic("finished")
	}
	l.in.use(derive(ms, "c ap traffic", l.transcript))
	if !mutual {
		l.out.use(write)
	}
	l.send(20, mac(label(ms, "s finished", nil, 32), l.transcript))
	l.out.use(derive(ms, "s ap traffic", l.transcript))
}

// -- with a stored key -----------------------------------------------------------------------------------------------

const storedKey, earlyAuth = 0xFF4B, 0xFF4C

func (l *link) storedClient(me identity, host string, spki []byte, mutual bool) {
	secret, ciphertext := must(mlkem.NewEncapsulationKey768(spki[len(spki)-1184:])).Encapsulate()
	print := sha256.Sum256(spki)
	more := extension(storedKey, cat(print[:], vec16(ciphertext)))
	if mutual {
		more = cat(more, extension(earlyAuth, nil))
	}
	own := l.hello(host, more)
	es := extract(zeros, secret)
	if mutual {
		l.Write([]byte{20, 3, 3, 0, 1, 1})
		l.out.use(derive(es, "c e hs traffic", l.transcript))
		l.send(11, me.certificate())
	}
	shared, found := l.serverHello(own)
	if _, ok := found[storedKey]; !ok {
		panic("the stored key was not accepted")
	}
	hs := extract(derive(es, "derived", nil), shared)
	l.in.use(derive(hs, "s hs traffic", l.transcript))
	if !mutual {
		l.Write([]byte{20, 3, 3, 0, 1, 1})
	}
	l.out.use(derive(hs, "c hs traffic", l.transcript))
	l.message(8)
	mine := zeros
	if mutual {
		mine = me.decapsulate(l.message(30))
	}
	ms := extract(derive(hs, "derived", nil), mine)
	expected := mac(label(ms, "s finished", nil, 32), l.transcript)
	if !hmac.Equal(l.message(20), expected) {
		panic("finished")
	}
	l.in.use(derive(ms, "s ap traffic", l.transcript))
	l.send(20, mac(label(ms, "c finished", nil, 32), l.transcript))
	l.out.use(derive(ms, "c ap traffic", l.transcript))
}

func (l *link) storedServer(me identity, spki []byte, mutual bool) {
	session, offered := l.clientHello()
	stored := offered[storedKey]
	print := sha256.Sum256(spki)
	if !bytes.Equal(stored.take(32), print[:]) {
		panic("another key")
	}
	es := extract(zeros, must(must(mlkem.NewDecapsulationKey768(me.seed)).Decapsulate(stored.vector(2))))
	more, peer, body := extension(storedKey, nil), zeros, []byte(nil)
	if mutual {
		more = cat(more, extension(earlyAuth, nil))
		l.in.use(derive(es, "c e hs traffic", l.transcript))
		peer, body = me.encapsulate(l.message(11), "", x509.ExtKeyUsageClientAuth)
	}
	shared := l.answer(session, offered, more)
	hs := extract(derive(es, "derived", nil), shared)
	l.in.use(derive(hs, "c hs traffic", l.transcript))
	l.out.use(derive(hs, "s hs traffic", l.transcript))
	l.send(8, vec16(extension(16, vec16(vec8([]byte("logfwd/1"))))))
	if mutual {
		l.send(30, body)
	}
	ms := extract(derive(hs, "derived", nil), peer)
	l.send(20, mac(label(ms, "s finished", nil, 32), l.transcript))
	l.out.use(derive(ms, "s ap traffic", l.transcript))
	expected := mac(label(ms, "c finished", nil, 32), l.transcript)
	if !hmac.Equal(l.message(20), expected) {
		panic("finished")
	}
	l.in.use(derive(ms, "c ap traffic", l.transcript))
}

func main() {
	role, port, host, mutual := os.Args[1], os.Args[2], os.Args[3], os.Args[7] == "mutual"
	me := identity{must(os.ReadFile(os.Args[5])),
		must(hex.DecodeString(strings.TrimSpace(string(must(os.ReadFile(os.Args[6])))))), must(os.ReadFile(os.Args[4])), nil}
	if path := os.Getenv("DELEGATED"); path != "" {
		me.delegated = must(os.ReadFile(path))
		authentication = cat(extension(13, vec16(cat(u16(0xFE02), u16(0x0403)))), extension(50, vec16(u16(0x0403))),
			extension(delegatedCredential, vec16(u16(0xFE02))))
	}
	if role == "client" {
		l := &link{Conn: must(net.Dial("tcp", "localhost:"+port))}
		if len(os.Args) > 8 {
			l.storedClient(me, host, must(os.ReadFile(os.Args[8])), mutual)
		} else {
			l.client(me, host, mutual)
		}
		l.record(23, []byte("hello"))
		var echo []byte
		for kind, data := l.next(); kind == 23; kind, data = l.next() {
			echo = append(echo, data...)
		}
		fmt.Printf("{\"echo\": %q}\n", echo)
		l.record(21, []byte{1, 0})
		return
	}
	listener := must(net.Listen("tcp", "localhost:0"))
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	l := &link{Conn: must(listener.Accept())}
	if len(os.Args) > 8 {
		l.storedServer(me, must(os.ReadFile(os.Args[8])), mutual)
	} else {
		l.server(me, mutual)
	}
	kind, data := l.next()
	l.record(kind, data)
	l.record(21, []byte{1, 0})
}
