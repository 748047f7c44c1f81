import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import type { Connectable, Connection } from '../core/workload.ts';

/** A database and its owner. */
export interface DatabaseProps {
  /** Name of the database: a plain SQL identifier. */
  readonly name: string;
  /** Role that owns it and connects to it; several databases may have the same owner. */
  readonly owner: string;
}

/** What a database needs of its server. */
interface Server extends Endpoint {
  readonly plan: SecretPlan;
}

/** One database of a {@link Postgres}: what an application is wired to. */
export class Database implements Connectable, Endpoint {
  readonly name: string;
  readonly owner: string;
  readonly host: string;
  readonly port: number;
  readonly network: PodNetwork;
  readonly #plan: SecretPlan;
  readonly #secretName: string;

  constructor(server: Server, instance: string, props: DatabaseProps) {
    this.name = props.name;
    this.owner = props.owner;
    this.host = server.host;
    this.port = server.port;
    this.network = server.network;
    this.#plan = server.plan;
    // Underscores are usual in SQL and not admitted in names of Kubernetes.
    this.#secretName = `${instance}-role-${props.owner.replaceAll('_', '-')}`;
  }

  /** The owner's user name and password, in a namespace. */
  credentials(namespace: string): SecretRef {
    return this.#plan.password(this.#secretName, this.owner, namespace);
  }

  /** The certificate that the server's one is verified against, in a namespace. */
  authority(namespace: string): SecretRef {
    return this.#plan.authorityCertificate(namespace);
  }

  /** Admits the client and gives it libpq's variables, its credentials below /secrets/postgres, and the authority. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [this.port]);
    return {
      env: {
        PGHOST: this.host,
        PGPORT: String(this.port),
        PGDATABASE: this.name,
        PG_CREDENTIALS_DIR: '/secrets/postgres',
        PG_CA_FILE: '/secrets/ca/ca.crt',
      },
      secrets: [
        { path: '/secrets/postgres', secret: this.credentials(client.namespace) },
        { path: '/secrets/ca', secret: this.authority(client.namespace) },
      ],
    };
  }
}

/** The plan of the `databases` Job, as JSON. */
export function databaseDeclaration(databases: readonly DatabaseProps[]): string {
  return JSON.stringify({ databases: databases.map(({ name, owner }) => ({ name, owner })) }, undefined, 2);
}
