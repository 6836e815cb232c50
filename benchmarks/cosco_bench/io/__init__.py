"""What the disks are asked to do, beside a sort shuffle that writes real files."""
