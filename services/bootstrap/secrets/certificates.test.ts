import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { createServer, type Server, connect as tlsConnect } from 'node:tls';
import { createAuthority, isPastRenewal, issueCertificate, type KeyPair, reasonToRenew } from './certificates.ts';

const dayMs = 24 * 3600 * 1000;
const request = {
  commonName: 'gateway',
  dnsNames: ['gateway', 'gateway.local-services.svc', 'localhost'],
  ipAddresses: ['127.0.0.1'],
  usages: ['server'],
} as const;

describe('certificates', () => {
  let authority: KeyPair;
  let leaf: KeyPair;

  before(async () => {
    authority = await createAuthority('SomaGent region test');
    leaf = await issueCertificate(authority, request);
  });

  it('carry names, usages and a P-256 key', () => {
    const parsed = new X509Certificate(leaf.certificate);
    assert.equal(parsed.subject, 'CN=gateway');
    assert.equal(
      parsed.subjectAltName,
      'DNS:gateway, DNS:gateway.local-services.svc, DNS:localhost, IP Address:127.0.0.1',
    );
    assert.deepEqual(parsed.keyUsage, ['1.3.6.1.5.5.7.3.1']);
    assert.equal(parsed.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
    assert.equal(parsed.ca, false);
    assert.equal(parsed.checkIssued(new X509Certificate(authority.certificate)), true);
    assert.match(leaf.key, /^-----BEGIN PRIVATE KEY-----\n/);
  });

  it('live 90 days, the authority 10 years', () => {
    const days = (pem: string) => Math.round((Date.parse(new X509Certificate(pem).validTo) - Date.now()) / dayMs);
    assert.equal(days(leaf.certificate), 90);
    assert.equal(days(authority.certificate), 3650);
    assert.equal(new X509Certificate(authority.certificate).ca, true);
  });

  it('are renewed past two thirds of their life and not before', () => {
    assert.equal(isPastRenewal(leaf.certificate, new Date(Date.now() + 59 * dayMs)), false);
    assert.equal(isPastRenewal(leaf.certificate, new Date(Date.now() + 61 * dayMs)), true);
  });

  it('are kept while they are what the plan asks for', () => {
    assert.equal(reasonToRenew(leaf, authority.certificate, request), undefined);
  });

  it('say why they cannot be kept', async () => {
    const other = await createAuthority('another');
    const foreign = await issueCertificate(other, request);
    const reason = (pair: KeyPair, asked: typeof request | object = request) =>
      reasonToRenew(pair, authority.certificate, { ...request, ...asked });
    assert.equal(reason(foreign), 'signed by another authority');
    assert.equal(
      reason({ certificate: leaf.certificate, key: foreign.key }),
      'key and certificate do not belong together',
    );
    assert.equal(reason({ certificate: 'scrap', key: leaf.key }), 'unreadable');
    assert.equal(reason(leaf, { dnsNames: ['gateway'] }), 'the plan changed');
    assert.equal(reason(leaf, { usages: ['server', 'client'] }), 'the plan changed');
    assert.equal(reason(leaf, { commonName: 'other' }), 'the plan changed');
  });

  describe('on a real TLS connection', () => {
    let server: Server;
    let port: number;

    before(async () => {
      server = createServer(
        {
          cert: leaf.certificate,
          key: leaf.key,
          ca: authority.certificate,
          requestCert: true,
          rejectUnauthorized: true,
        },
        (socket) => socket.end('welcome'),
      );
      await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
      const address = server.address();
      port = typeof address === 'object' && address !== null ? address.port : 0;
    });

    after(() => server.close());

    const greet = (identity: KeyPair, ca: string, servername = 'localhost') =>
      new Promise<string>((done, fail) => {
        const client = { cert: identity.certificate, key: identity.key, ca };
        const socket = tlsConnect({ host: '127.0.0.1', port, servername, ...client });
        socket.on('data', (chunk) => done(chunk.toString()));
        socket.on('error', fail);
        socket.on('close', () => fail(new Error('closed without a word')));
      });

    it('admit a client of the same authority', async () => {
      const client = await issueCertificate(authority, { ...request, commonName: 'worker', usages: ['client'] });
      assert.equal(await greet(client, authority.certificate), 'welcome');
    });

    it('refuse a client certificate that may only serve', async () => {
      await assert.rejects(greet(leaf, authority.certificate));
    });

    it('refuse another authority and another name', async () => {
      const client = await issueCertificate(authority, { ...request, usages: ['client'] });
      const other = await createAuthority('another');
      await assert.rejects(greet(client, other.certificate), { code: 'SELF_SIGNED_CERT_IN_CHAIN' });
      await assert.rejects(greet(client, authority.certificate, 'keycloak'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    });
  });
});
