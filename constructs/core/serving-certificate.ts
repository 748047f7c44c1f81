import type { SecretPlan, SecretRef } from './secret-plan.ts';

/** How a server can be reached from outside the cluster, as far as its certificate is concerned. */
export interface Reachability {
  /** Opens the HTTPS port on every node. @default reachable within the cluster only */
  readonly exposure?: { readonly nodePort: number };
  /** Further DNS names of the certificate. @default ['localhost'] when exposed */
  readonly certificateNames?: readonly string[];
  /** IP addresses of the certificate. @default ['127.0.0.1'] when exposed */
  readonly certificateAddresses?: readonly string[];
}

/** A server that shows a certificate. */
export interface CertifiedServer {
  /** Name of its Service; the certificate is the Secret `<instance>-tls`. */
  readonly instance: string;
  /** DNS name within the cluster. */
  readonly host: string;
  readonly namespace: string;
}

/** Asks for the certificate of an HTTPS server, good for its names inside the cluster and outside. */
export function servingCertificate(plan: SecretPlan, server: CertifiedServer, reach: Reachability): SecretRef {
  const { instance, host, namespace } = server;
  const { exposure } = reach;
  const { certificateNames = exposure ? ['localhost'] : [], certificateAddresses = exposure ? ['127.0.0.1'] : [] } =
    reach;
  return plan.certificate(
    `${instance}-tls`,
    {
      commonName: instance,
      dnsNames: [instance, host, ...certificateNames],
      ipAddresses: certificateAddresses,
      usages: ['server'],
    },
    namespace,
  );
}
