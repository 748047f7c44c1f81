import 'reflect-metadata'; // tsyringe, inside @peculiar/x509, refuses to load without it
import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

/** What a leaf certificate must say. */
export interface CertificateRequest {
  readonly commonName: string;
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly usages: readonly ('server' | 'client')[];
}

const dayMs = 24 * 3600 * 1000;
/** Life of the region's authority, in days. */
export const authorityDays = 3650;
/** Life of a leaf, in days: short enough that a leaked key ages out, long enough to survive a holiday. */
export const leafDays = 90;
/** Clocks of nodes differ: a certificate is valid a little before it was made. */
const skewMs = 5 * 60 * 1000;

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const usageOids = { server: x509.ExtendedKeyUsage.serverAuth, client: x509.ExtendedKeyUsage.clientAuth } as const;

function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;
}

async function pemOfKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

function validity(now: Date, days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(now.getTime() - skewMs), notAfter: new Date(now.getTime() + days * dayMs) };
}

/** Makes a self-signed authority that may sign leaves only (RFC 5280, path length 0). */
export async function createAuthority(commonName: string, now = new Date()): Promise<KeyPair> {
  const keys = await generateKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [commonName] }, { O: ['SomaGent'] }],
    ...validity(now, authorityDays),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: `${certificate.toString('pem')}\n`, key: await pemOfKey(keys.privateKey) };
}

/** Issues a leaf signed by the authority. */
export async function issueCertificate(
  authority: KeyPair,
  request: CertificateRequest,
  now = new Date(),
): Promise<KeyPair> {
  const keys = await generateKeys();
  const issuer = new x509.X509Certificate(authority.certificate);
  const der = x509.PemConverter.decodeFirst(authority.key);
  const signingKey = await webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [request.commonName] }],
    issuer: issuer.subjectName,
    ...validity(now, leafDays),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey,
    extensions: await leafExtensions(request, keys.publicKey, issuer),
  });
  return { certificate: `${certificate.toString('pem')}\n`, key: await pemOfKey(keys.privateKey) };
}

async function leafExtensions(
  request: CertificateRequest,
  publicKey: webcrypto.CryptoKey,
  issuer: x509.X509Certificate,
): Promise<x509.Extension[]> {
  const names = [
    ...request.dnsNames.map((value) => ({ type: 'dns' as const, value })),
    ...request.ipAddresses.map((value) => ({ type: 'ip' as const, value })),
  ];
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension(request.usages.map((usage) => usageOids[usage])),
    ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
    await x509.SubjectKeyIdentifierExtension.create(publicKey),
    await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
  ];
}

/** True when more than two thirds of the certificate's life have passed. */
export function isPastRenewal(certificate: string, now = new Date()): boolean {
  const parsed = new X509Certificate(certificate);
  const from = Date.parse(parsed.validFrom);
  const to = Date.parse(parsed.validTo);
  return now.getTime() > from + ((to - from) * 2) / 3;
}

/** Why a stored leaf cannot be kept, or undefined when it is still what the plan asks for. */
export function reasonToRenew(
  stored: KeyPair,
  authorityCertificate: string,
  request: CertificateRequest,
  now = new Date(),
): string | undefined {
  let parsed: X509Certificate;
  try {
    parsed = new X509Certificate(stored.certificate);
    if (!parsed.checkPrivateKey(createPrivateKey(stored.key))) return 'key and certificate do not belong together';
  } catch {
    return 'unreadable';
  }
  if (!parsed.verify(new X509Certificate(authorityCertificate).publicKey)) return 'signed by another authority';
  if (isPastRenewal(stored.certificate, now)) return 'past two thirds of its life';
  return sameRequest(new x509.X509Certificate(stored.certificate), request) ? undefined : 'the plan changed';
}

function sameRequest(certificate: x509.X509Certificate, request: CertificateRequest): boolean {
  const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
  const usages = certificate.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? [];
  const ofType = (type: string) => names.filter((item) => item.type === type).map((item) => item.value);
  return (
    certificate.subjectName.getField('CN')[0] === request.commonName &&
    sameSet(ofType('dns'), request.dnsNames) &&
    sameSet(ofType('ip'), request.ipAddresses) &&
    sameSet(
      usages.map(String),
      request.usages.map((usage) => usageOids[usage]),
    )
  );
}

function sameSet(left: readonly string[], right: readonly string[]): boolean {
  const a = new Set(left);
  const b = new Set(right);
  return a.size === b.size && [...a].every((item) => b.has(item));
}
