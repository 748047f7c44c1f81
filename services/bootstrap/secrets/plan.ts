import { z } from 'zod';

const name = z.string().regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, 'must be a Kubernetes name: a-z, 0-9, - and .');
const namespaces = z.array(name).min(1);

const authorityCertificate = z.strictObject({ kind: z.literal('authority-certificate'), name, namespaces });
const password = z.strictObject({
  kind: z.literal('password'),
  name,
  /** Stored beside the password, so that a consumer needs one Secret only. */
  username: z.string().min(1),
  namespaces,
});
const token = z.strictObject({ kind: z.literal('token'), name, namespaces });
const certificate = z.strictObject({
  kind: z.literal('certificate'),
  name,
  namespaces,
  commonName: z.string().min(1).max(64),
  dnsNames: z.array(z.string().min(1)).default([]),
  ipAddresses: z.array(z.string().min(1)).default([]),
  usages: z.array(z.enum(['server', 'client'])).min(1),
});
const signingKey = z.strictObject({
  kind: z.literal('signing-key'),
  name,
  /** One: a private key that lies in two namespaces can be stolen in two. */
  namespaces: z.array(name).length(1),
  algorithm: z.enum(['ES256', 'Ed25519', 'RS256']),
});
/** The public half of the signing key `of`. */
const publicKey = z.strictObject({ kind: z.literal('public-key'), name, namespaces, of: name });

/** Plan of the `secrets` command: which generated Secrets a region has, and in which namespaces. */
export const secretsPlan = z.strictObject({
  region: name,
  authority: z.strictObject({ namespace: name, name }),
  secrets: z.array(
    z.discriminatedUnion('kind', [authorityCertificate, password, token, certificate, signingKey, publicKey]),
  ),
});

export type SecretsPlan = z.input<typeof secretsPlan>;
export type SecretEntry = z.output<typeof secretsPlan>['secrets'][number];
export type CertificateEntry = z.output<typeof certificate>;
export type SigningAlgorithm = z.output<typeof signingKey>['algorithm'];
