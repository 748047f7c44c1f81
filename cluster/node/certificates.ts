import 'reflect-metadata';
import { createHash, X509Certificate as NodeCertificate, randomBytes, webcrypto } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as x509 from '@peculiar/x509';
import { apiAddress, network, nodeName } from '../layout.ts';

x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const day = 24 * 3600 * 1000;
const validity = 365 * day;

/** What a certificate of the cluster is for. Authorities sign; the others are signed by the authority they name. */
interface CertificateRequest {
  readonly commonName: string;
  readonly organization?: string;
  /** Absent for an authority, which signs itself. */
  readonly authority?: AuthorityName;
  readonly usages?: readonly ('server' | 'client')[];
  readonly dnsNames?: readonly string[];
  readonly addresses?: readonly string[];
}

/** As whom the API server calls the kubelet. */
export const apiServerUser = 'somagent:api-server';

type AuthorityName = 'ca' | 'etcd-ca' | 'front-proxy-ca';

const localNames = { dnsNames: ['localhost'], addresses: ['127.0.0.1'] };
const apiNames = {
  dnsNames: [
    'localhost',
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    `kubernetes.default.svc.${network.clusterDomain}`,
  ],
  addresses: ['127.0.0.1', network.nodeAddress, network.apiService],
};

/** Source: https://kubernetes.io/docs/setup/best-practices/certificates/ */
const requests = {
  ca: { commonName: 'kubernetes' },
  'etcd-ca': { commonName: 'etcd' },
  'front-proxy-ca': { commonName: 'front-proxy' },
  'etcd-server': { authority: 'etcd-ca', commonName: nodeName, usages: ['server', 'client'], ...localNames },
  'apiserver-etcd-client': { authority: 'etcd-ca', commonName: 'apiserver-etcd-client', usages: ['client'] },
  apiserver: { authority: 'ca', commonName: 'apiserver', usages: ['server'], ...apiNames },
  'apiserver-kubelet-client': { authority: 'ca', commonName: apiServerUser, usages: ['client'] },
  'front-proxy-client': { authority: 'front-proxy-ca', commonName: 'front-proxy-client', usages: ['client'] },
  'kubelet-server': {
    authority: 'ca',
    commonName: `system:node:${nodeName}`,
    organization: 'system:nodes',
    usages: ['server'],
    dnsNames: [nodeName],
    addresses: [network.nodeAddress],
  },
  admin: { authority: 'ca', commonName: 'admin', organization: 'system:masters', usages: ['client'] },
  'controller-manager': { authority: 'ca', commonName: 'system:kube-controller-manager', usages: ['client'] },
  scheduler: { authority: 'ca', commonName: 'system:kube-scheduler', usages: ['client'] },
  kubelet: { authority: 'ca', commonName: `system:node:${nodeName}`, organization: 'system:nodes', usages: ['client'] },
  'kube-proxy': { authority: 'ca', commonName: 'system:kube-proxy', usages: ['client'] },
  'network-policy': { authority: 'ca', commonName: 'somagent:network-policy', usages: ['client'] },
  'metrics-server': { authority: 'ca', commonName: 'somagent:metrics-server', usages: ['client'] },
  'metrics-server-tls': {
    authority: 'ca',
    commonName: 'metrics-server',
    usages: ['server'],
    dnsNames: ['metrics-server.kube-system.svc'],
  },
  storage: { authority: 'ca', commonName: 'somagent:storage', usages: ['client'] },
} as const satisfies Record<string, CertificateRequest>;

export type CertificateName = keyof typeof requests;

/** Who has a kubeconfig of their own. */
const kubeconfigUsers = [
  'admin',
  'controller-manager',
  'scheduler',
  'kubelet',
  'kube-proxy',
  'network-policy',
  'storage',
  'metrics-server',
] as const satisfies readonly CertificateName[];

export type KubeconfigUser = (typeof kubeconfigUsers)[number];

/** Paths of the keys and certificates below one folder. */
export class Pki {
  readonly folder: string;

  constructor(state: string) {
    this.folder = join(state, 'pki');
  }

  certificate(name: CertificateName): string {
    return join(this.folder, `${name}.crt`);
  }

  key(name: CertificateName): string {
    return join(this.folder, `${name}.key`);
  }

  kubeconfig(user: KubeconfigUser): string {
    return join(this.folder, `${user}.kubeconfig`);
  }

  get serviceAccountKey(): string {
    return join(this.folder, 'service-accounts.key');
  }

  get serviceAccountPublicKey(): string {
    return join(this.folder, 'service-accounts.pub');
  }

  get encryptionConfiguration(): string {
    return join(this.folder, 'encryption.json');
  }
}

/** Makes what is absent or past two thirds of its life; what is valid stays, so that running clients keep working. */
export async function ensureCertificates(state: string): Promise<Pki> {
  const pki = new Pki(state);
  mkdirSync(pki.folder, { recursive: true, mode: 0o700 });
  const names = Object.keys(requests) as CertificateName[];
  const authorities = names.filter((name) => !('authority' in requests[name]));
  for (const name of authorities) await ensureCertificate(pki, name);
  await Promise.all(names.filter((name) => !authorities.includes(name)).map((name) => ensureCertificate(pki, name)));
  for (const user of kubeconfigUsers) writeKubeconfig(pki, user);
  await ensureServiceAccountKey(pki);
  ensureEncryptionKey(pki);
  return pki;
}

async function ensureCertificate(pki: Pki, name: CertificateName): Promise<void> {
  const request: CertificateRequest = requests[name];
  if (isCurrent(pki, name, request)) return;
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await sign(pki, request, keys);
  writeSecret(pki.key(name), await pemOf(keys.privateKey));
  writeSecret(pki.certificate(name), `${certificate.toString('pem')}\n`);
}

/** Valid for another third of its life, signed by the authority of today, and for the names of today. */
function isCurrent(pki: Pki, name: CertificateName, request: CertificateRequest): boolean {
  if (!existsSync(pki.certificate(name)) || !existsSync(pki.key(name))) return false;
  try {
    const certificate = new NodeCertificate(readFileSync(pki.certificate(name)));
    const issuer = request.authority
      ? new NodeCertificate(readFileSync(pki.certificate(request.authority)))
      : certificate;
    const names = [...(request.dnsNames ?? []), ...(request.addresses ?? [])];
    const covered = names.every((each) => certificate.checkHost(each) ?? certificate.checkIP(each));
    return (
      covered && Date.parse(certificate.validTo) - Date.now() > validity / 3 && certificate.verify(issuer.publicKey)
    );
  } catch {
    return false; // Half written or not a certificate: it is made anew.
  }
}

async function sign(
  pki: Pki,
  request: CertificateRequest,
  keys: webcrypto.CryptoKeyPair,
): Promise<x509.X509Certificate> {
  const { authority, commonName, organization } = request;
  const issuer = authority ? new x509.X509Certificate(readFileSync(pki.certificate(authority), 'utf8')) : undefined;
  const subject = new x509.Name([{ CN: [commonName] }, ...(organization ? [{ O: [organization] }] : [])]);
  return x509.X509CertificateGenerator.create({
    serialNumber: `00${randomBytes(15).toString('hex')}`,
    subject: subject.toString(),
    issuer: (issuer?.subject ?? subject.toString()) as string,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + (authority ? validity : 10 * validity)),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: authority ? await importKey(pki.key(authority)) : keys.privateKey,
    extensions: extensionsOf(request, await x509.SubjectKeyIdentifierExtension.create(keys.publicKey)),
  });
}

function extensionsOf(request: CertificateRequest, identifier: x509.Extension): x509.Extension[] {
  const { digitalSignature, keyCertSign, cRLSign } = x509.KeyUsageFlags;
  if (!request.authority) {
    const usage = new x509.KeyUsagesExtension(digitalSignature | keyCertSign | cRLSign, true);
    return [new x509.BasicConstraintsExtension(true, 0, true), usage, identifier];
  }
  const purposes = { server: x509.ExtendedKeyUsage.serverAuth, client: x509.ExtendedKeyUsage.clientAuth };
  const names: x509.JsonGeneralNames = [
    ...(request.dnsNames ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(request.addresses ?? []).map((value) => ({ type: 'ip' as const, value })),
  ];
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(digitalSignature, true),
    new x509.ExtendedKeyUsageExtension((request.usages ?? []).map((usage) => purposes[usage])),
    ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
    identifier,
  ];
}

async function importKey(path: string): Promise<webcrypto.CryptoKey> {
  const der = x509.PemConverter.decodeFirst(readFileSync(path, 'utf8'));
  return webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']);
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

async function ensureServiceAccountKey(pki: Pki): Promise<void> {
  if (existsSync(pki.serviceAccountKey) && existsSync(pki.serviceAccountPublicKey)) return;
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const publicKey = x509.PemConverter.encode(await webcrypto.subtle.exportKey('spki', keys.publicKey), 'PUBLIC KEY');
  writeSecret(pki.serviceAccountKey, await pemOf(keys.privateKey));
  writeSecret(pki.serviceAccountPublicKey, `${publicKey}\n`);
}

/** Secrets at rest in etcd are encrypted with a key that exists only here. */
function ensureEncryptionKey(pki: Pki): void {
  if (existsSync(pki.encryptionConfiguration)) return;
  const secret = randomBytes(32).toString('base64');
  const name = `key-${createHash('sha256').update(secret).digest('hex').slice(0, 8)}`;
  const configuration = {
    apiVersion: 'apiserver.config.k8s.io/v1',
    kind: 'EncryptionConfiguration',
    resources: [{ resources: ['secrets'], providers: [{ secretbox: { keys: [{ name, secret }] } }, { identity: {} }] }],
  };
  writeSecret(pki.encryptionConfiguration, JSON.stringify(configuration));
}

function writeKubeconfig(pki: Pki, user: KubeconfigUser): void {
  const encoded = (path: string): string => readFileSync(path).toString('base64');
  const name = 'somagent-local';
  const configuration = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': name,
    clusters: [{ name, cluster: { server: apiAddress, 'certificate-authority-data': encoded(pki.certificate('ca')) } }],
    contexts: [{ name, context: { cluster: name, user } }],
    users: [
      {
        name: user,
        user: {
          'client-certificate-data': encoded(pki.certificate(user)),
          'client-key-data': encoded(pki.key(user)),
        },
      },
    ],
  };
  // JSON is YAML, and every client reads it.
  writeSecret(pki.kubeconfig(user), `${JSON.stringify(configuration, undefined, 2)}\n`);
}

/** Writes a file for root only, at once: a reader sees the old content or the new. Leaves equal content alone. */
export function writeSecret(path: string, content: string): void {
  if (existsSync(path) && readFileSync(path, 'utf8') === content) return;
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, content, { mode: 0o600 });
  renameSync(temporary, path);
}
