import { planeNamespace } from './region-chart.ts';
import { dnsLabel } from './validate.ts';

/** The region's own certificate authority: `ca.crt` for everybody, the key only where it signs. */
export interface AuthorityCertificateRequest {
  readonly kind: 'authority-certificate';
}

/** A generated password: keys `username` and `password`, the same value in every namespace. */
export interface PasswordRequest {
  readonly kind: 'password';
  readonly username: string;
}

/** A certificate signed by the region's authority: keys `tls.crt`, `tls.key`, `ca.crt`. */
export interface CertificateRequest {
  readonly kind: 'certificate';
  readonly commonName: string;
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly usages: readonly ('server' | 'client')[];
}

/** 32 random bytes in base64url, under the key `token`. */
export interface TokenRequest {
  readonly kind: 'token';
}

/**
 * How a key signs: ES256 is ECDSA on P-256 with SHA-256 (RFC 7518), Ed25519 is RFC 8032. RS256 is RSA with SHA-256, for
 * products that verify nothing else.
 */
export type SigningAlgorithm = 'ES256' | 'Ed25519' | 'RS256';

/** A key pair for signatures: `private.pem` (PKCS #8) and `public.pem` (SPKI), in the signer's namespace only. */
export interface SigningKeyRequest {
  readonly kind: 'signing-key';
  readonly algorithm: SigningAlgorithm;
}

/** The public half of a signing key, as `public.pem`, for those who verify. */
export interface PublicKeyRequest {
  readonly kind: 'public-key';
  /** Name of the signing key. */
  readonly of: string;
}

/** What a secret holds. */
export type SecretRequest =
  | AuthorityCertificateRequest
  | PasswordRequest
  | CertificateRequest
  | TokenRequest
  | SigningKeyRequest
  | PublicKeyRequest;

/** A secret of the plan: what it holds, its name, and every namespace that gets it. */
export type PlannedSecret = SecretRequest & { readonly name: string; readonly namespaces: readonly string[] };

/** What the bootstrap Job reads. */
export interface SecretPlanDocument {
  readonly region: string;
  readonly authority: { readonly namespace: string; readonly name: string };
  readonly secrets: readonly PlannedSecret[];
}

/** A Secret in a namespace. The value is unknown here: it is generated inside the cluster. */
export interface SecretRef {
  readonly name: string;
  readonly namespace: string;
}

interface Entry {
  readonly request: SecretRequest;
  readonly namespaces: Set<string>;
}

/**
 * Every secret that a region needs. Products ask for theirs while they are constructed; the bootstrap Job, constructed
 * last, renders the plan and closes it.
 */
export class SecretPlan {
  readonly region: string;
  readonly #entries = new Map<string, Entry>();
  #closed = false;

  constructor(region: string) {
    this.region = dnsLabel('region', region);
  }

  /** The certificate of the region's authority, as the key `ca.crt`. */
  authorityCertificate(namespace: string): SecretRef {
    return this.#ask('region-ca-cert', { kind: 'authority-certificate' }, namespace);
  }

  /** A user name with a generated password. */
  password(name: string, username: string, namespace: string): SecretRef {
    return this.#ask(name, { kind: 'password', username }, namespace);
  }

  /** A certificate and its key. */
  certificate(name: string, request: Omit<CertificateRequest, 'kind'>, namespace: string): SecretRef {
    return this.#ask(name, { kind: 'certificate', ...request }, namespace);
  }

  /** A random token. */
  token(name: string, namespace: string): SecretRef {
    return this.#ask(name, { kind: 'token' }, namespace);
  }

  /**
   * A key pair for signatures. One namespace signs: a private key that lies in two can be stolen in two.
   * @throws Error when it is asked for in a second namespace.
   */
  signingKey(name: string, algorithm: SigningAlgorithm, namespace: string): SecretRef {
    const [home] = this.#entries.get(name)?.namespaces ?? [namespace];
    if (home !== namespace) {
      throw new Error(
        `signing key ${name} lies in ${home} and was asked for in ${namespace}. Sign in one place, or name another key.`,
      );
    }
    return this.#ask(name, { kind: 'signing-key', algorithm }, namespace);
  }

  /** The public half of a signing key, in any namespace. */
  publicKey(signingKey: string, namespace: string): SecretRef {
    return this.#ask(`${signingKey}-public`, { kind: 'public-key', of: signingKey }, namespace);
  }

  /** The plan in a stable order. Afterwards nothing can be asked for any more. */
  close(): SecretPlanDocument {
    this.#closed = true;
    for (const { request } of this.#entries.values()) this.#hasSigningKey(request);
    const secrets = [...this.#entries]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, { request, namespaces }]) => ({ ...request, name, namespaces: [...namespaces].sort() }));
    return {
      region: this.region,
      authority: { namespace: planeNamespace(this.region, 'system'), name: 'region-ca' },
      secrets,
    };
  }

  #ask(name: string, request: SecretRequest, namespace: string): SecretRef {
    dnsLabel('secret name', name);
    const entry = this.#entries.get(name);
    if (entry !== undefined) this.#sameRequest(name, entry.request, request);
    if (entry?.namespaces.has(namespace)) return { name, namespace };
    if (this.#closed) {
      throw new Error(
        `secret ${name} for ${namespace} was asked for after the plan of region ${this.region} was closed. ` +
          'Construct Bootstrap after every product that it serves.',
      );
    }
    if (entry === undefined) this.#entries.set(name, { request, namespaces: new Set([namespace]) });
    else entry.namespaces.add(namespace);
    return { name, namespace };
  }

  #hasSigningKey(request: SecretRequest): void {
    if (request.kind !== 'public-key' || this.#entries.get(request.of)?.request.kind === 'signing-key') return;
    throw new Error(
      `the public half of ${request.of} is asked for in region ${this.region}, but nobody asked for the signing key. ` +
        `Construct the signer of ${request.of} too.`,
    );
  }

  #sameRequest(name: string, known: SecretRequest, asked: SecretRequest): void {
    if (JSON.stringify(known) === JSON.stringify(asked)) return;
    throw new Error(
      `secret ${name} of region ${this.region} is asked for twice with different content: ` +
        `${JSON.stringify(known)} and ${JSON.stringify(asked)}. Give the second one another name.`,
    );
  }
}
