import { k8s } from 'cdk8s-plus-33';
import { Construct } from 'constructs';
import { contentHash } from './content-hash.ts';
import { type Identity, objectLabels } from './labels.ts';

/** Options of {@link ContentConfigMap}. */
export interface ContentConfigMapProps extends Identity {
  /** First part of the object's name. */
  readonly name: string;
  /** File name → text. */
  readonly files: Readonly<Record<string, string>>;
}

/** An immutable ConfigMap named by its content: an edit rolls the pods that mount it and never changes it under them. */
export class ContentConfigMap extends Construct {
  /** Name of the object, such as `temporal-config-1a2b3c4d5e`. */
  readonly name: string;

  constructor(scope: Construct, id: string, props: ContentConfigMapProps) {
    super(scope, id);
    this.name = `${props.name}-${contentHash(props.files)}`;
    new k8s.KubeConfigMap(this, 'object', {
      metadata: { name: this.name, labels: objectLabels(this, props) },
      immutable: true,
      data: { ...props.files },
    });
  }
}
